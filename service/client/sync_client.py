# Generated from async_client.py by `make client`: edit that file, not this one.
"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, cast

import httpx
from httpx_sse import connect_sse

from eigenlens.service.api.admin import BackupAnswer, GenerationAnswer, Job, Optimise, StatsAnswer
from eigenlens.service.api.duplicates import DEFAULT_COSINE, DuplicatesAnswer
from eigenlens.service.api.embeddings import EmbeddingsAnswer
from eigenlens.service.api.facets import FacetAnswer, FacetsAnswer
from eigenlens.service.api.images import AddAnswer, ExifAnswer, FolderAnswer, ImageAnswer, ImagesAnswer, Order
from eigenlens.service.api.search import BatchAnswer, BatchItemAnswer, LengthsAnswer, SearchAnswer
from eigenlens.service.client import calls, errors, uploads
from eigenlens.service.client.calls import (
    ADMIN,
    URL,
    Call,
    Example,
    OnProgress,
    Query,
    Retries,
    SearchOptions,
    headers_of,
    ignore_progress,
)
from eigenlens.service.client.errors import ApiError
from eigenlens.service.client.transport import cannot_connect, transport_options, unreachable
from eigenlens.service.client.upload_progress import OnUploadProgress, UploadCounter, ignore_upload_progress
from eigenlens.service.client.uploads import UploadOptions
from eigenlens.service.errors import ServiceError

T = TypeVar("T")


class Client:
    """A connection to a service. Queries are an image's bytes or Path, the id of an image (str) or a code.

        with Client("http://127.0.0.1:8080", key=KEY) as client:
            answer = client.search(Path("shoe.jpg"), k=5, length=16)

    Answers have the members of the OpenAPI document, as attributes and by name: `answer.results[0].id` is
    `answer["results"][0]["id"]`. Every method raises: ApiError, if the service refuses; UnreachableError, if it does
    not answer; ServiceError, if what answers is no such service.
    """

    def __init__(
        self, url: str = URL, *, key: str | None = None, timeout_s: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._url, self._retries = url, retries or Retries()
        try:
            self._http = httpx.Client(**transport_options(url), headers=headers_of(key), timeout=timeout_s)
        except (ImportError, OSError, ValueError) as error:
            if isinstance(error, ServiceError):
                raise
            raise cannot_connect(url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, call: Call) -> Any:
        """Send any call, with retries, and return the JSON of its answer."""
        return errors.parsed(self._send(call))

    def _ask(self, kind: type[T], call: Call) -> T:
        return errors.parsed_as(kind, self._send(call))

    def _send(self, call: Call) -> httpx.Response:
        tries = 0
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(call.method, call.path, **call.arguments)
            except httpx.TransportError as error:
                outcome = error
            except httpx.InvalidURL as error:
                raise unreachable(self._url, error) from error
            pause_s = self._retries.pause(call, tries, outcome)
            if pause_s is None:
                if isinstance(outcome, httpx.TransportError):
                    raise unreachable(self._url, outcome) from outcome
                return errors.checked(outcome)
            time.sleep(pause_s)
            tries += 1

    def search(self, query: Query, **options: Unpack[SearchOptions]) -> SearchAnswer:
        """Return the images most like the query, best first."""
        return self._ask(SearchAnswer, calls.search(query, options))

    def search_like(
        self, positive: Sequence[Example], negative: Sequence[Example] = (), **options: Unpack[SearchOptions]
    ) -> SearchAnswer:
        """Return the images most like the positive examples and least like the negative ones."""
        return self._ask(SearchAnswer, calls.search_like(positive, negative, options))

    def search_batch(self, queries: Sequence[Query], **options: Unpack[SearchOptions]) -> list[BatchItemAnswer]:
        """Run several searches in one request; if one fails, the others are still answered."""
        answer = self._ask(BatchAnswer, calls.search_batch(queries, options))
        return answer.answers

    def embed(self, images: Sequence[bytes], *, dimensions: int | None = None) -> list[list[float]]:
        """Return codes of images, or prefixes of them, scaled to unit norm."""
        answer = self._ask(EmbeddingsAnswer, calls.embed(images, dimensions))
        return [cast("list[float]", entry.embedding) for entry in answer.data]

    def lengths(self) -> LengthsAnswer:
        """Return the prefix lengths that can be searched, and the cost of each."""
        return self._ask(LengthsAnswer, Call("GET", "/v1/lengths"))

    def add(self, images: Mapping[str, bytes], metadata: Sequence[Mapping[str, Any]] | None = None) -> AddAnswer:
        """Add or replace images by their ids; one that cannot be used does not stop the others."""
        return self._ask(AddAnswer, calls.add(images, metadata))

    def add_folder(
        self,
        folder: Path,
        *,
        options: UploadOptions | None = None,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        on_progress: OnUploadProgress = ignore_upload_progress,
    ) -> FolderAnswer:
        """Upload the images below a folder, or one file; `on_progress` gets the images done and the bytes sent.

        What is an image is decided by the content of a file. An image that cannot be read or used fails alone; a
        request that is too large or too slow is sent again in halves.

        Args:
            options: everything but the progress; `prefix` and `metadata` are short for the two members of that name.
        """
        options = options or uploads.UploadOptions(prefix=prefix, metadata=metadata)
        found = uploads.uploads_of(folder, options)
        counter, added = UploadCounter(found.images, on_progress), uploads.merged([])
        if options.skip_present:
            missing, added = uploads.part_present(found, self._checksums(options))
            left = {upload.id for upload in missing.images}
            counter.finish([upload for upload in found.images if upload.id not in left])
            found = missing
        for batch in uploads.batches_of(found.images):
            added = uploads.merged([added, self._add(batch, counter)])
        return uploads.of_folder(added, found.skipped)

    def _checksums(self, options: UploadOptions) -> dict[str, str]:
        checksums: dict[str, str] = {}
        page = self._ask(ImagesAnswer, uploads.page_after(None, options))
        checksums.update(uploads.checksums_of(page))
        while page.next is not None:
            page = self._ask(ImagesAnswer, uploads.page_after(page.next, options))
            checksums.update(uploads.checksums_of(page))
        return checksums

    def _add(self, batch: list[uploads.Upload], counter: UploadCounter) -> AddAnswer:
        call, answer = uploads.read_batch(batch, counter)
        try:
            if call is not None:
                answer = uploads.merged([self._ask(AddAnswer, call), answer])
        except ApiError as error:
            halves = uploads.halves_of(batch, error)
            if halves is None:
                raise
            if len(halves) > 1:
                counter.give_up()
                return uploads.merged([self._add(half, counter) for half in halves])
            answer = uploads.refused(halves[0][0], error)
        counter.finish(batch)
        return answer

    def get(self, id: str) -> ImageAnswer:
        """Return what the gallery stores about an image."""
        return self._ask(ImageAnswer, Call("GET", calls.image_path(id)))

    def images(
        self, *, prefix: str = "", contains: str = "", order: Order = "name", limit: int | None = None
    ) -> list[ImageAnswer]:
        """List the gallery's images, page by page, up to `limit` of them or all.

        Args:
            prefix, contains: ids begin with this, and have this somewhere; capital letters of ASCII do not matter.
            order: by their ids, the last added first (`newest`), or the last taken first (`taken`).
        """
        images: list[ImageAnswer] = []
        after: str | None = None
        while limit is None or len(images) < limit:
            left = None if limit is None else limit - len(images)
            call = calls.images_after(after, prefix=prefix, contains=contains, order=order, limit=left)
            page = self._ask(ImagesAnswer, call)
            images += page.images
            after = page.next
            if after is None:
                break
        return images

    def facets(self, *, limit: int = 12) -> list[FacetAnswer]:
        """Return the fields of the metadata that images share values of, with up to `limit` values of each."""
        answer = self._ask(FacetsAnswer, Call("GET", "/v1/facets", params={"limit": limit}))
        return answer.facets

    def exif(self, id: str) -> dict[str, str]:
        """Return what a camera wrote into an image's file, by name; empty if there is nothing."""
        answer = self._ask(ExifAnswer, Call("GET", "/v1/exif", params={"id": id}))
        return answer.exif

    def change_metadata(self, id: str, metadata: Mapping[str, Any]) -> ImageAnswer:
        """Set fields of an image's metadata; a field that is None is removed."""
        call = Call("PATCH", calls.image_path(id), json={"metadata": dict(metadata)})
        return self._ask(ImageAnswer, call)

    def remove(self, id: str) -> None:
        """Remove an image."""
        self._send(Call("DELETE", calls.image_path(id)))

    def rebuild(
        self,
        *,
        lengths: Sequence[int] | None = None,
        kinds: Mapping[int, str] | None = None,
        optimise: Optimise | None = None,
        encoder: str | None = None,
    ) -> Job:
        """Start a rebuild."""
        return self._ask(Job, calls.rebuild(lengths, kinds, optimise, encoder))

    def recalibrate(self) -> Job:
        """Start a job that measures all plans again with recent searches."""
        return self._ask(Job, Call("POST", f"{ADMIN}/recalibrate", repeatable=False))

    def forget_queries(self) -> None:
        """Let the service forget the codes of recent searches."""
        self._send(Call("DELETE", f"{ADMIN}/recent-queries"))

    def find_duplicates(self, *, cosine: float = DEFAULT_COSINE) -> Job:
        """Start a job that finds all duplicates of the gallery, which `duplicates` then lists."""
        body = {"cosine": cosine}
        return self._ask(Job, Call("POST", f"{ADMIN}/duplicates", json=body, repeatable=False))

    def duplicates(self, *, exact: bool | None = None) -> DuplicatesAnswer:
        """Return all groups of duplicates that the last job found; `found` is None if there was none.

        Args:
            exact: whether all images of a group have the same bytes; None for all groups.
        """
        groups = []
        after: int | None = 0
        while after is not None:
            page = self._ask(DuplicatesAnswer, calls.duplicates_after(after, exact))
            groups += page.groups
            after = page.next
        return page.model_copy(update={"groups": groups})

    def import_folder(self, folder: str, *, rebuild: bool = False) -> Job:
        """Start a job that imports a folder of the server."""
        body = {"folder": folder, "rebuild": rebuild}
        return self._ask(Job, Call("POST", f"{ADMIN}/import", json=body, repeatable=False))

    def sync(self, *, name: str | None = None, dry_run: bool = False, rebuild: bool = False) -> Job:
        """Start a job that brings the gallery in step with its folders, or tells what it would do."""
        body = {"name": name, "dry_run": dry_run, "rebuild": rebuild}
        return self._ask(Job, Call("POST", f"{ADMIN}/sync", json=body, repeatable=False))

    def jobs(self) -> list[Job]:
        """List the last hundred jobs, newest first."""
        return self._ask(list[Job], Call("GET", f"{ADMIN}/jobs"))

    def job(self, id: str) -> Job:
        """Return one job."""
        return self._ask(Job, Call("GET", f"{ADMIN}/jobs/{id}"))

    def cancel(self, id: str) -> Job:
        """Cancel a job."""
        return self._ask(Job, Call("POST", f"{ADMIN}/jobs/{id}/cancel"))

    def follow(self, id: str) -> Iterator[Job]:
        """Yield a job at each change until it ends."""
        try:
            with connect_sse(self._http, "GET", f"{ADMIN}/jobs/{id}/events") as events:
                if events.response.status_code >= 400:
                    events.response.read()
                    errors.checked(events.response)
                for event in events.iter_sse():
                    yield Job.model_validate_json(event.data)
        except httpx.TransportError as error:
            raise unreachable(self._url, error) from error

    def generations(self) -> list[GenerationAnswer]:
        """List the generations on disk, newest first."""
        return self._ask(list[GenerationAnswer], Call("GET", f"{ADMIN}/generations"))

    def activate(self, number: int) -> GenerationAnswer:
        """Serve a generation."""
        return self._ask(GenerationAnswer, Call("POST", f"{ADMIN}/generations/{number}/activate"))

    def remove_generation(self, number: int) -> None:
        """Remove a generation that is not served."""
        self._send(Call("DELETE", f"{ADMIN}/generations/{number}"))

    def stats(self) -> StatsAnswer:
        """Return figures of the gallery and of the service's process."""
        return self._ask(StatsAnswer, Call("GET", f"{ADMIN}/stats"))

    def backup(self, path: Path, *, files: bool = False, on_progress: OnProgress = ignore_progress) -> int:
        """Write one consistent archive of the gallery to a new file, whole or not at all, and return its size."""
        params = {"files": str(files).lower()}
        try:
            with self._http.stream("GET", f"{ADMIN}/backup", params=params, timeout=None) as response:
                if response.status_code >= 400:
                    response.read()
                total = int(errors.checked(response).headers["content-length"])
                with calls.new_file(path) as f:
                    for piece in response.iter_bytes():
                        f.write(piece)
                        on_progress(f.tell(), total)
        except httpx.TransportError as error:
            raise unreachable(self._url, error) from error
        return total

    def backups(self) -> list[BackupAnswer]:
        """List the archives in the gallery's folder `backups`, newest first."""
        return self._ask(list[BackupAnswer], Call("GET", f"{ADMIN}/backups"))

    def keep_backup(self, name: str | None = None, *, files: bool = False) -> BackupAnswer:
        """Let the service write an archive into the gallery's folder `backups`."""
        body = {"name": name, "files": files}
        return self._ask(BackupAnswer, Call("POST", f"{ADMIN}/backups", json=body, repeatable=False))

    def restore(self, backup: str, *, rebuild: bool = False) -> Job:
        """Start a job that restores the gallery's images from an archive in its folder `backups`."""
        body = {"backup": backup, "rebuild": rebuild}
        return self._ask(Job, Call("POST", f"{ADMIN}/restore", json=body, repeatable=False))
