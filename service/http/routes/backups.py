"""Backups of a served gallery: sent to the client or written into the gallery's folder; and restoring one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from eigenlens.service.api.admin import BackupAnswer, BackupBody, BackupName, Job, RestoreBody
from eigenlens.service.errors import BackupExistsError, BackupNotFoundError
from eigenlens.service.gallery.backup import Archive, snapshot, write_archive
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_backup
from eigenlens.service.http.routes.admin import start_job
from eigenlens.service.http.state import CurrentState

router = APIRouter(prefix="/v1/admin", tags=["admin"])

_TAR: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "a tar archive",
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class ArchiveResponse(StreamingResponse):
    """Sends an archive, and closes the stack with its temporary files at the end, also if the client leaves."""

    def __init__(self, archive: Archive, stack: ExitStack, *, name: str) -> None:
        headers = {"Content-Length": str(len(archive)), "Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(_pieces(archive), media_type="application/x-tar", headers=headers)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._stack.close)


@router.get("/backup", response_class=StreamingResponse, responses=_TAR | problem_responses("gallery-busy"))
async def backup(
    state: CurrentState,
    files: Annotated[bool, Query(description="include the bytes of images that lie in folders")] = False,
) -> ArchiveResponse:
    """Download an archive of the gallery as it is at this moment. Searches and changes continue meanwhile.

    It has the images, what the gallery stores about them, and the served generation with codes and encoder; no keys.
    """
    stack = ExitStack()
    members = await to_thread.run_sync(lambda: stack.enter_context(snapshot(state.gallery, files=files)))
    return ArchiveResponse(Archive(members), stack, name=_new_name())


@router.get("/backups")
def list_backups(state: CurrentState) -> list[BackupAnswer]:
    """List the archives in the gallery's folder `backups`, newest first."""
    backups = [present_backup(path) for path in _folder(state.gallery).glob("[!.]*.tar")]
    return sorted(backups, key=lambda backup: (backup.created, backup.name), reverse=True)


@router.post("/backups", status_code=201, responses=problem_responses("gallery-busy", "backup-exists"))
def create_backup(state: CurrentState, response: Response, body: BackupBody | None = None) -> BackupAnswer:
    """Write an archive into the gallery's folder `backups`, whole or not at all."""
    options = body or BackupBody()
    name = options.name or _new_name()
    path = _folder(state.gallery) / name
    with snapshot(state.gallery, files=options.files) as members:
        try:
            write_archive(Archive(members), path)
        except FileExistsError:
            raise BackupExistsError(f"there is a backup '{name}' already; choose another name") from None
    response.headers["Location"] = "/v1/admin/backups"
    return present_backup(path)


@router.delete("/backups/{name}", status_code=204, responses=problem_responses("backup-not-found"))
def delete_backup(name: BackupName, state: CurrentState) -> None:
    """Remove an archive from the gallery's folder `backups`."""
    _existing(state.gallery, name).unlink(missing_ok=True)


@router.post("/restore", status_code=202, responses=problem_responses("job-running", "backup-not-found"))
def restore(state: CurrentState, response: Response, body: RestoreBody) -> Job:
    """Restore the gallery's images from an archive in its folder `backups`, in one step, while searches continue.

    Equal images stay as they are. The archive must be of the encoder that is served.
    """
    path = _existing(state.gallery, body.backup)
    return start_job(state, response, "restore", {"backup": str(path), "rebuild": body.rebuild})


async def _pieces(archive: Archive) -> AsyncIterator[bytes]:
    pieces = iter(archive)
    while (piece := await to_thread.run_sync(next, pieces, None)) is not None:
        yield piece


def _folder(gallery: Gallery) -> Path:
    folder = gallery.root / "backups"
    folder.mkdir(exist_ok=True)
    return folder


def _existing(gallery: Gallery, name: str) -> Path:
    path = _folder(gallery) / name
    if not path.is_file():
        raise BackupNotFoundError(f"there is no backup '{name}'; see GET /v1/admin/backups")
    return path


def _new_name() -> str:
    return f"gallery-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.tar"
