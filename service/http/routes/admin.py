"""Administration: rebuilds, folders to take in, generations and the switch between them. All need the admin key."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Response

from eigenlens.index.faiss_engine.suitable_kinds import choose_indexes
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.service.api.admin import GenerationAnswer, ImportBody, Job, RebuildBody, StatsAnswer
from eigenlens.service.errors import EncoderNotFoundError, FolderError, GenerationInUseError
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_generation, present_job
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1/admin", tags=["admin"])


@router.post("/rebuild", status_code=202, responses=problem_responses("job-running", "encoder-not-found"))
def rebuild(state: CurrentState, response: Response, body: RebuildBody | None = None) -> Job:
    """Build the next generation in the background. The present one answers searches until the switch."""
    asked = body or RebuildBody()
    engine = state.snapshots.current.engine
    if asked.encoder is None:  # what cannot be built is refused now and not in the job
        lengths = choose_lengths(engine.code_length, asked.lengths or engine.lengths)
        kinds = {int(length): kind for length, kind in asked.kinds.items()}
        choose_indexes(len(engine.keys), lengths=lengths, kinds=kinds)
    elif not (state.gallery.encoder_path(asked.encoder) / "manifest.json").is_file():
        known = ", ".join(sorted(path.name for path in state.gallery.encoders.iterdir()))
        raise EncoderNotFoundError(f"the gallery has no encoder '{asked.encoder}'; it has {known}")
    return started(state, response, "rebuild", asked.model_dump())


@router.post("/import", status_code=202, responses=problem_responses("job-running"))
def import_folder(state: CurrentState, response: Response, body: ImportBody) -> Job:
    """Import the images of a folder on the server, below its `import_root`. Each is found once it is imported.

    The files stay where they are, and their ids are their paths below the folder. The job's `result` lists files that
    cannot be used. Images that the gallery has with the same content are left unchanged, so an import can be repeated.
    """
    root = state.settings.import_root
    if root is None:
        raise FolderError("no folder of this server may be taken in; its setting import_root names none")
    folder = _below(root, body.folder)
    options = {"folder": str(folder), "root": str(root.resolve()), "rebuild": body.rebuild}
    return started(state, response, "import", options)


@router.get("/generations")
def list_generations(state: CurrentState) -> list[GenerationAnswer]:
    """List the generations on disk, newest first."""
    served = state.snapshots.current.number
    return [
        present_generation(number, found, served=number == served)
        for number, found in reversed(list(state.gallery.manifests()))
    ]


@router.post("/generations/{number}/activate", responses=problem_responses("generation-not-found"))
def activate_generation(number: int, state: CurrentState) -> GenerationAnswer:
    """Serve an earlier or later generation. Images added or removed since it was built stay added or removed."""
    state.gallery.switch(number)
    state.snapshots.load()
    snapshot = state.snapshots.current
    return present_generation(snapshot.number, state.gallery.manifest(snapshot.number), served=True)


@router.delete(
    "/generations/{number}", status_code=204, responses=problem_responses("generation-not-found", "generation-in-use")
)
def delete_generation(number: int, state: CurrentState) -> None:
    """Remove a generation that is not served, and the codes that only it needs."""
    if number == state.snapshots.current.number:
        raise GenerationInUseError(f"generation {number} is served; activate another one first")
    state.gallery.remove_generation(number)


@router.get("/stats")
def stats(state: CurrentState) -> StatsAnswer:
    """Get the size of the gallery in images and bytes, and the running jobs."""
    gallery, snapshot = state.gallery, state.snapshots.current
    started = datetime.fromisoformat(state.started)
    return StatsAnswer(
        images=gallery.store.count(),
        searchable=len(snapshot.engine),
        pending=snapshot.engine.added,
        removed=snapshot.engine.removed,
        generation=snapshot.number,
        generations=gallery.numbers(),
        encoder=snapshot.encoder.id,
        encoders=sorted(path.name for path in gallery.encoders.iterdir() if not path.name.startswith(".")),
        bytes={
            "database": sum(path.stat().st_size for path in gallery.root.glob("gallery.sqlite*")),
            "codes": _size(gallery.codes),
            "generations": _size(gallery.generations),
            "encoders": _size(gallery.encoders),
            "backups": _size(gallery.root / "backups"),
        },
        free_bytes=shutil.disk_usage(gallery.root).free,
        resident_bytes=_resident(),
        uptime_s=round((datetime.now(UTC) - started).total_seconds(), 3),
        jobs=[job.id for job in state.jobs.list() if job.finished is None],
    )


def started(state: State, response: Response, kind: str, options: dict[str, object]) -> Job:
    """Start a job and say where to follow it."""
    job = state.runner.start(kind, options)
    response.headers["Location"] = f"/v1/admin/jobs/{job.id}"
    return present_job(job)


def _below(root: Path, folder: str) -> Path:
    """A folder below the root, wherever `..` and symbolic links lead. Raises: FolderError."""
    try:
        path = (root / folder).resolve()
        found = path.is_relative_to(root.resolve()) and path.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        found = False
    if not found:
        raise FolderError(f"there is no folder {folder!r} below the server's import_root")
    return path


def _size(folder: Path) -> int:
    """Bytes below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _resident() -> int | None:
    """Bytes of this process in memory, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
