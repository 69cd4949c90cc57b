"""Administration: rebuilds, recalibration, imports, generations, statistics. All routes need a key of scope admin."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Response

from eigenlens.service.api.admin import (
    GenerationAnswer,
    ImportBody,
    Job,
    LiveRecallAnswer,
    RebuildBody,
    StatsAnswer,
    SyncBody,
)
from eigenlens.service.errors import EncoderNotFoundError, FolderError, GenerationInUseError
from eigenlens.service.gallery.folders import known_folders
from eigenlens.service.gallery.recalibrate import check_queries
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_advice, present_generation, present_job, present_recall
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1/admin", tags=["admin"])


@router.post("/rebuild", status_code=202, responses=problem_responses("job-running", "encoder-not-found"))
def rebuild(state: CurrentState, response: Response, body: RebuildBody | None = None) -> Job:
    """Build the next generation in the background. The present one answers searches until the switch."""
    options = body or RebuildBody()
    engine = state.snapshots.current.engine
    backend = state.gallery.backend(state.gallery.current_backend())
    if options.optimise is not None:
        backend.check_optimise(options.optimise)
    if options.encoder is None:  # refuse impossible lengths and kinds here, not later in the job
        lengths = backend.choose_lengths(engine.code_length, options.lengths or engine.lengths)
        kinds = {int(length): kind for length, kind in options.kinds.items()}
        backend.choose_indexes(len(engine.keys), lengths=lengths, kinds=kinds)
    elif not (state.gallery.encoder_path(options.encoder) / "manifest.json").is_file():
        known = ", ".join(sorted(path.name for path in state.gallery.encoders.iterdir()))
        raise EncoderNotFoundError(f"the gallery has no encoder '{options.encoder}'; it has {known}")
    return start_job(state, response, "rebuild", options.model_dump())


@router.post("/recalibrate", status_code=202, responses=problem_responses("job-running", "too-few-queries"))
def recalibrate(state: CurrentState, response: Response) -> Job:
    """Measure all plans again in the background, with the codes of recent searches, and serve the result.

    The indexes stay as they are. The job publishes a new generation; activate the one before to go back. It takes the
    searches that the answering worker keeps (setting `recent_queries`), and at least 100 of them.
    """
    sample = state.queries.sample()
    check_queries(sample, encoder_id=state.snapshots.current.engine.encoder_id)
    return start_job(state, response, "recalibrate", {"queries": len(sample.codes)}, payload=sample.to_bytes())


@router.delete("/recent-queries", status_code=204)
def forget_queries(state: CurrentState) -> None:
    """Forget the codes of recent searches, in every worker. Recall that was measured already stays known."""
    state.forget_queries()


@router.post("/import", status_code=202, responses=problem_responses("job-running"))
def import_folder(state: CurrentState, response: Response, body: ImportBody) -> Job:
    """Import the images of a folder on the server, below its `import_root`. Each is found once it is imported.

    The files stay where they are, and their ids are the folder's name and their paths below it. The job's `result`
    lists files that cannot be used. Another import of the same folder brings the gallery in step with it.
    """
    root = state.settings.import_root
    if root is None:
        raise FolderError("no folder of this server may be imported; its setting import_root names none")
    folder = _below(root, body.folder)
    options: dict[str, object] = {
        "folder": str(folder),
        "root": str(root.resolve()),
        "name": body.name,
        "rebuild": body.rebuild,
        "limits": state.settings.limits.to_json(),
    }
    return start_job(state, response, "import", options)


@router.post("/sync", status_code=202, responses=problem_responses("job-running"))
def sync(state: CurrentState, response: Response, body: SyncBody | None = None) -> Job:
    """Bring the gallery in step with its folders: images whose files were added, changed, moved or deleted.

    Moved images keep their codes and metadata. Nothing is removed because of a folder that is not there or empty.
    """
    options = body or SyncBody()
    known_folders(state.gallery.store, name=options.name)  # refuse an unknown name here, not later in the job
    return start_job(state, response, "sync", options.model_dump() | {"limits": state.settings.limits.to_json()})


@router.get("/generations")
def list_generations(state: CurrentState) -> list[GenerationAnswer]:
    """List the generations on disk, newest first."""
    served = state.snapshots.current.number
    return [
        present_generation(number, manifest, served=number == served)
        for number, manifest in reversed(list(state.gallery.manifests()))
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
            "database": gallery.store.size_bytes(),
            "codes": _size(gallery.codes),
            "generations": _size(gallery.generations),
            "encoders": _size(gallery.encoders),
            "backups": _size(gallery.root / "backups"),
        },
        free_bytes=shutil.disk_usage(gallery.root).free,
        resident_bytes=_resident(),
        uptime_s=round((datetime.now(UTC) - started).total_seconds(), 3),
        jobs=[job.id for job in state.jobs.list() if job.finished is None],
        rebuild_advice=present_advice(snapshot.rebuild_advice()),
        recent_queries=len(state.queries),
        live_recall=LiveRecallAnswer(
            share=state.recall.share, plans=[present_recall(r) for r in state.recall.reached()]
        ),
    )


def start_job(state: State, response: Response, kind: str, options: dict[str, object], *, payload: bytes = b"") -> Job:
    """Start a job; set the header Location to its address. Its options are recorded, its payload is not."""
    job = state.runner.start(kind, options, payload=payload)
    response.headers["Location"] = f"{state.settings.root_path}/v1/admin/jobs/{job.id}"
    return present_job(job)


def _below(root: Path, folder: str) -> Path:
    """Return a folder below the root, after `..` and symbolic links are resolved. Raises: FolderError."""
    try:
        path = (root / folder).resolve()
        is_below = path.is_relative_to(root.resolve()) and path.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        is_below = False
    if not is_below:
        raise FolderError(f"there is no folder {folder!r} below the server's import_root")
    return path


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; a file that is removed meanwhile does not count."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _resident() -> int | None:
    """Return the bytes of this process in memory; None if the system does not report them."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
