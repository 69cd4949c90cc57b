"""Clients of the service, blocking and asynchronous: typed, and patient where the service asks for that.

with Client("http://127.0.0.1:8080", key=KEY) as client:
    client.add_folder(Path("~/Pictures").expanduser(), on_progress=print)
    for result in client.search(Path("shoe.jpg"), k=5, length=16)["results"]:
        print(result["score"], result["id"])
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from eigenlens.service.client import calls
from eigenlens.service.client import uploads as uploading
from eigenlens.service.client.async_client import AsyncClient
from eigenlens.service.client.calls import (
    ADMIN,
    URL,
    ApiError,
    Call,
    OnProgress,
    Query,
    Retries,
    UnreachableError,
    headers_of,
    nothing,
)
from eigenlens.service.client.types import (
    Added,
    Backup,
    BatchItem,
    Generation,
    Image,
    Job,
    SearchAnswer,
    SearchOptions,
    Stats,
)

__all__ = ["ApiError", "AsyncClient", "Client", "Retries", "UnreachableError"]


class Client:
    """A connection to a service. Queries are an image's bytes or Path, the id of an image (str) or a code.

    Every method raises: ApiError, if the service refuses; UnreachableError, if it does not answer.
    """

    def __init__(
        self, url: str = URL, *, key: str | None = None, timeout_s: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._url, self._retries = url, retries or Retries()
        try:
            self._http = httpx.Client(base_url=url, headers=headers_of(key), timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise calls.unreachable(url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, call: Call) -> Any:
        """Send any call, again where that is right; the JSON of its answer."""
        tried = 0
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(call.method, call.path, **call.arguments)
            except httpx.TransportError as error:
                outcome = error
            except httpx.InvalidURL as error:
                raise calls.unreachable(self._url, error) from error
            pause = self._retries.pause(call, tried, outcome)
            if pause is None:
                if isinstance(outcome, httpx.TransportError):
                    raise calls.unreachable(self._url, outcome) from outcome
                return calls.parsed(calls.checked(outcome))
            time.sleep(pause)
            tried += 1

    def search(self, query: Query, **how: Unpack[SearchOptions]) -> SearchAnswer:
        """Images most like the query, best first."""
        answer: SearchAnswer = self.call(calls.search(query, how))
        return answer

    def search_batch(self, queries: Sequence[Query], **how: Unpack[SearchOptions]) -> list[BatchItem]:
        """Several searches in one request; one that cannot be answered fails alone."""
        items: list[BatchItem] = self.call(calls.search_batch(queries, how))["answers"]
        return items

    def embed(self, images: Sequence[bytes], *, dimensions: int | None = None) -> list[list[float]]:
        """Codes of images, or prefixes of them, of unit length."""
        return [entry["embedding"] for entry in self.call(calls.embed(images, dimensions))["data"]]

    def lengths(self) -> dict[str, Any]:
        """The prefix lengths that can be searched, and what each costs."""
        found: dict[str, Any] = self.call(Call("GET", "/v1/lengths"))
        return found

    def add(self, images: Mapping[str, bytes], metadata: Sequence[Mapping[str, Any]] | None = None) -> Added:
        """Add or replace images by their ids; one that cannot be used fails alone."""
        added: Added = self.call(calls.add(images, metadata))
        return added

    def add_folder(
        self,
        folder: Path,
        *,
        prefix: str = "",
        metadata: Mapping[str, Any] | None = None,
        on_progress: OnProgress = nothing,
    ) -> Added:
        """Upload the images below a folder, or one file; `on_progress` is told how many of how many are done."""
        uploads = uploading.uploads_of(folder, prefix=prefix, metadata=metadata)
        added = uploading.merged([])
        for batch in uploading.batches_of(uploads):
            added = uploading.merged([added, self._add(batch)])
            on_progress(len(added["images"]) + len(added["failed"]), len(uploads))
        return added

    def _add(self, uploads: list[uploading.Upload]) -> Added:
        try:
            added: Added = self.call(uploading.add_uploads(uploads))
            return added
        except ApiError as error:
            if (halves := uploading.smaller(uploads, error)) is None:
                raise
            if len(halves) == 1:
                return uploading.failed(halves[0][0], error)
            return uploading.merged([self._add(half) for half in halves])

    def get(self, id: str) -> Image:
        """What the gallery knows of an image."""
        image: Image = self.call(Call("GET", calls.image_path(id)))
        return image

    def change_metadata(self, id: str, metadata: Mapping[str, Any]) -> Image:
        """Set the fields that are given, remove those that are None."""
        call = Call("PATCH", calls.image_path(id), json={"metadata": dict(metadata)})
        image: Image = self.call(call)
        return image

    def remove(self, id: str) -> None:
        """Remove an image."""
        self.call(Call("DELETE", calls.image_path(id)))

    def rebuild(
        self,
        *,
        lengths: Sequence[int] | None = None,
        kinds: Mapping[int, str] | None = None,
        encoder: str | None = None,
    ) -> Job:
        """Start a rebuild."""
        job: Job = self.call(calls.rebuild(lengths, kinds, encoder))
        return job

    def import_folder(self, folder: str, *, rebuild: bool = False) -> Job:
        """Start to take in a folder of the server's."""
        body = {"folder": folder, "rebuild": rebuild}
        job: Job = self.call(Call("POST", f"{ADMIN}/import", json=body, repeatable=False))
        return job

    def jobs(self) -> list[Job]:
        """The last hundred jobs, newest first."""
        found: list[Job] = self.call(Call("GET", f"{ADMIN}/jobs"))
        return found

    def job(self, id: str) -> Job:
        """One job."""
        found: Job = self.call(Call("GET", f"{ADMIN}/jobs/{id}"))
        return found

    def cancel(self, id: str) -> Job:
        """Ask a job to end without a result."""
        found: Job = self.call(Call("POST", f"{ADMIN}/jobs/{id}/cancel"))
        return found

    def follow(self, id: str) -> Iterator[Job]:
        """A job at each change until it ends."""
        lines: list[str] = []
        try:
            with self._http.stream("GET", f"{ADMIN}/jobs/{id}/events") as stream:
                if stream.status_code >= 400:
                    stream.read()
                for line in calls.checked(stream).iter_lines():
                    lines.append(line)
                    if not line:
                        if (job := calls.event_of(lines)) is not None:
                            yield job
                        lines.clear()
        except httpx.TransportError as error:
            raise calls.unreachable(self._url, error) from error

    def generations(self) -> list[Generation]:
        """The generations that are kept, newest first."""
        found: list[Generation] = self.call(Call("GET", f"{ADMIN}/generations"))
        return found

    def activate(self, number: int) -> Generation:
        """Serve a generation that is kept."""
        found: Generation = self.call(Call("POST", f"{ADMIN}/generations/{number}/activate"))
        return found

    def remove_generation(self, number: int) -> None:
        """Remove a generation that is not served."""
        self.call(Call("DELETE", f"{ADMIN}/generations/{number}"))

    def stats(self) -> Stats:
        """Figures of the gallery."""
        found: Stats = self.call(Call("GET", f"{ADMIN}/stats"))
        return found

    def backup(self, path: Path, *, files: bool = False, on_progress: OnProgress = nothing) -> int:
        """Write one consistent archive of the gallery to a new file, whole or not at all; its bytes."""
        params = {"files": str(files).lower()}
        try:
            with self._http.stream("GET", f"{ADMIN}/backup", params=params, timeout=None) as stream:
                if stream.status_code >= 400:
                    stream.read()
                total = int(calls.checked(stream).headers["content-length"])
                with calls.new_file(path) as f:
                    for piece in stream.iter_bytes():
                        f.write(piece)
                        on_progress(f.tell(), total)
        except httpx.TransportError as error:
            raise calls.unreachable(self._url, error) from error
        return total

    def backups(self) -> list[Backup]:
        """The archives that lie beside the gallery, newest first."""
        found: list[Backup] = self.call(Call("GET", f"{ADMIN}/backups"))
        return found

    def keep_backup(self, name: str | None = None, *, files: bool = False) -> Backup:
        """Have the service write an archive beside the gallery."""
        body = {"name": name, "files": files}
        found: Backup = self.call(Call("POST", f"{ADMIN}/backups", json=body, repeatable=False))
        return found

    def restore(self, backup: str, *, rebuild: bool = False) -> Job:
        """Start to make the gallery's images those of an archive beside it."""
        body = {"backup": backup, "rebuild": rebuild}
        job: Job = self.call(Call("POST", f"{ADMIN}/restore", json=body, repeatable=False))
        return job
