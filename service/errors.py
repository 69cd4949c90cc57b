"""Errors of the service package; `problems.py` maps every error that a request can meet to an HTTP status."""

from __future__ import annotations

from eigenlens.artifact import EigenlensError
from eigenlens.system_errors import Kind, SystemProblem, describe, kind_of


class ServiceError(EigenlensError):
    """Root of the service package's errors."""


class SettingsError(ServiceError, ValueError):
    """A setting is wrong or unknown."""


class GalleryError(ServiceError):
    """A gallery cannot be opened or built; the message says why and what would work."""


class GalleryBusyError(GalleryError):
    """Another process is writing to the gallery; only one may."""


class InsufficientSpaceError(GalleryError):
    """A build takes more disk or memory than there is."""


class SystemProblemError(GalleryError):
    """The system refused something; the message says what, and what to do."""


class DiskFullError(SystemProblemError):
    """The disk is full."""


class ReadOnlyError(SystemProblemError):
    """The gallery is on a read-only file system, or belongs to another user."""


class DatabaseBusyError(SystemProblemError):
    """Another process holds the database for too long."""


class DatabaseUnreachableError(SystemProblemError):
    """The database's server is not reached, or refuses the service."""


class DatabaseDamagedError(SystemProblemError):
    """The database is damaged."""


_BY_KIND: dict[Kind, type[SystemProblemError]] = {
    "disk-full": DiskFullError,
    "read-only": ReadOnlyError,
    "not-permitted": ReadOnlyError,
    "busy": DatabaseBusyError,
    "damaged": DatabaseDamagedError,
    "system": SystemProblemError,
}


def explained(error: SystemProblem) -> SystemProblemError:
    """Return an error of the system or of SQLite as one of this package, with a sentence."""
    return _BY_KIND[kind_of(error)](describe(error))


class ImageNotFoundError(ServiceError, LookupError):
    """The gallery has no image of this id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"the gallery has no image '{id}'")
        self.id = id


class ImageContentGoneError(ServiceError):
    """The file that an image was built from was moved, changed or removed."""


class JobNotFoundError(ServiceError, LookupError):
    """There is no job of this id."""


class JobEndedError(ServiceError):
    """A job has ended already."""


class GenerationNotFoundError(ServiceError, LookupError):
    """There is no generation of this number."""


class EigenfunctionNotFoundError(ServiceError, LookupError):
    """There is no such coordinate, or the generation that is served was built before they were kept."""


class GenerationInUseError(ServiceError):
    """A generation cannot be removed while it is served."""


class EncoderNotFoundError(ServiceError, LookupError):
    """The gallery has no encoder of this id."""


class FolderError(ServiceError, ValueError):
    """A folder of the server's cannot be taken in."""


class BackupNotFoundError(ServiceError, LookupError):
    """There is no backup of this name."""


class BackupExistsError(ServiceError):
    """There is a backup of this name already."""


class BackupError(ServiceError):
    """An archive is no backup, or a damaged one, or does not fit the gallery."""


class ImageChangedError(ServiceError):
    """An image was replaced or removed by somebody else at the same time."""


class TooFewQueriesError(ServiceError):
    """Too few recent searches are kept to measure recall with."""


class JobRunningError(ServiceError):
    """A rebuild is running already; one at a time."""


class RequestError(ServiceError, ValueError):
    """A request is not of a form that can be answered."""


class ContentTypeError(RequestError):
    """A request's body is of a type that is not understood here."""


class BodyTooLargeError(RequestError):
    """A request's body has more bytes than the limit."""


class BodyMissingError(RequestError):
    """A request announced a body, and less of it arrived, or nothing."""


class ContentCodingError(RequestError):
    """A body is compressed in a way that is not understood, or damaged."""


class RangeError(RequestError):
    """A request asks for bytes beyond the end of a file of `size` bytes."""

    def __init__(self, *, size: int) -> None:
        super().__init__(f"the file has {size} bytes; the header Range asks for bytes beyond its end")
        self.size = size


class MalformedRequestError(RequestError):
    """What a client sent is no HTTP/1.1."""


class AddressTooLongError(RequestError):
    """The address of a request is longer than is taken."""


class HeadersTooLargeError(RequestError):
    """The headers of a request have more bytes than are taken."""


class UploadTimeoutError(RequestError):
    """A client took too long to send its request."""


class InputError(RequestError):
    """One parameter of a request cannot be used; `parameter` names it."""

    def __init__(self, message: str, *, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class ModelNotFoundError(ServiceError, LookupError):
    """There is no encoder of this name."""


class KeyMissingError(ServiceError):
    """A request came without the key that it needs, or with a wrong one."""


class KeyScopeError(ServiceError):
    """The key that was sent is known and lacks the scope that this needs."""


class KeyFileError(ServiceError):
    """A file of keys cannot be used."""


class OverloadedError(ServiceError):
    """Too many requests are in progress."""


class RateLimitError(OverloadedError):
    """One client sent more requests than the setting rate_limit allows."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(OverloadedError):
    """A search was accepted but not answered before its deadline."""


class NotReadyError(ServiceError):
    """The service is starting or has nothing to serve yet."""


class WouldWaitError(ServiceError):
    """Something would have to wait, and runs on the event loop, where nothing may: a thread has to do it."""
