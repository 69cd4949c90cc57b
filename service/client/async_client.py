"""The client for asyncio: the methods of service.client.Client, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from eigenlens.service.client import calls
from eigenlens.service.client import uploads as uploading
from eigenlens.service.client.calls import ADMIN, URL, ApiError, Call, OnProgress, Query, Retries, headers_of, nothing
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


class AsyncClient:
    """Client for asyncio: the same methods, awaited."""

    def __init__(
        self, url: str = URL, *, key: str | None = None, timeout_s: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._url, self._retries = url, retries or Retries()
        try:
            self._http = httpx.AsyncClient(base_url=url, headers=headers_of(key), timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise calls.unreachable(url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def call(self, call: Call) -> Any:
        """Send any call, again where that is right; the JSON of its answer."""
        tried = 0
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.request(call.method, call.path, **call.arguments)
            except httpx.TransportError as error:
                outcome = error
            except httpx.InvalidURL as error:
                raise calls.unreachable(self._url, error) from error
            pause = self._retries.pause(call, tried, outcome)
            if pause is None:
                if isinstance(outcome, httpx.TransportError):
                    raise calls.unreachable(self._url, outcome) from outcome
                return calls.parsed(calls.checked(outcome))
            await asyncio.sleep(pause)
            tried += 1

    async def search(self, query: Query, **how: Unpack[SearchOptions]) -> SearchAnswer:
        """Images most like the query, best first."""
        answer: SearchAnswer = await self.call(calls.search(query, how))
        return answer

    async def search_batch(self, queries: Sequence[Query], **how: Unpack[SearchOptions]) -> list[BatchItem]:
        """Several searches in one request; one that cannot be answered fails alone."""
        items: list[BatchItem] = (await self.call(calls.search_batch(queries, how)))["answers"]
        return items

    async def embed(self, images: Sequence[bytes], *, dimensions: int | None = None) -> list[list[float]]:
        """Codes of images, or prefixes of them, of unit length."""
        return [entry["embedding"] for entry in (await self.call(calls.embed(images, dimensions)))["data"]]

    async def lengths(self) -> dict[str, Any]:
        """The prefix lengths that can be searched, and what each costs."""
        found: dict[str, Any] = await self.call(Call("GET", "/v1/lengths"))
        return found

    async def add(self, images: Mapping[str, bytes], metadata: Sequence[Mapping[str, Any]] | None = None) -> Added:
        """Add or replace images by their ids; one that cannot be used fails alone."""
        added: Added = await self.call(calls.add(images, metadata))
        return added

    async def add_folder(
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
            added = uploading.merged([added, await self._add(batch)])
            on_progress(len(added["images"]) + len(added["failed"]), len(uploads))
        return added

    async def _add(self, uploads: list[uploading.Upload]) -> Added:
        try:
            added: Added = await self.call(uploading.add_uploads(uploads))
            return added
        except ApiError as error:
            if (halves := uploading.smaller(uploads, error)) is None:
                raise
            if len(halves) == 1:
                return uploading.failed(halves[0][0], error)
            return uploading.merged([await self._add(half) for half in halves])

    async def get(self, id: str) -> Image:
        """What the gallery knows of an image."""
        image: Image = await self.call(Call("GET", calls.image_path(id)))
        return image

    async def change_metadata(self, id: str, metadata: Mapping[str, Any]) -> Image:
        """Set the fields that are given, remove those that are None."""
        call = Call("PATCH", calls.image_path(id), json={"metadata": dict(metadata)})
        image: Image = await self.call(call)
        return image

    async def remove(self, id: str) -> None:
        """Remove an image."""
        await self.call(Call("DELETE", calls.image_path(id)))

    async def rebuild(
        self,
        *,
        lengths: Sequence[int] | None = None,
        kinds: Mapping[int, str] | None = None,
        encoder: str | None = None,
    ) -> Job:
        """Start a rebuild."""
        job: Job = await self.call(calls.rebuild(lengths, kinds, encoder))
        return job

    async def import_folder(self, folder: str, *, rebuild: bool = False) -> Job:
        """Start to take in a folder of the server's."""
        body = {"folder": folder, "rebuild": rebuild}
        job: Job = await self.call(Call("POST", f"{ADMIN}/import", json=body, repeatable=False))
        return job

    async def jobs(self) -> list[Job]:
        """The last hundred jobs, newest first."""
        found: list[Job] = await self.call(Call("GET", f"{ADMIN}/jobs"))
        return found

    async def job(self, id: str) -> Job:
        """One job."""
        found: Job = await self.call(Call("GET", f"{ADMIN}/jobs/{id}"))
        return found

    async def cancel(self, id: str) -> Job:
        """Ask a job to end without a result."""
        found: Job = await self.call(Call("POST", f"{ADMIN}/jobs/{id}/cancel"))
        return found

    async def follow(self, id: str) -> AsyncIterator[Job]:
        """A job at each change until it ends."""
        lines: list[str] = []
        try:
            async with self._http.stream("GET", f"{ADMIN}/jobs/{id}/events") as stream:
                if stream.status_code >= 400:
                    await stream.aread()
                async for line in calls.checked(stream).aiter_lines():
                    lines.append(line)
                    if not line:
                        if (job := calls.event_of(lines)) is not None:
                            yield job
                        lines.clear()
        except httpx.TransportError as error:
            raise calls.unreachable(self._url, error) from error

    async def generations(self) -> list[Generation]:
        """The generations that are kept, newest first."""
        found: list[Generation] = await self.call(Call("GET", f"{ADMIN}/generations"))
        return found

    async def activate(self, number: int) -> Generation:
        """Serve a generation that is kept."""
        found: Generation = await self.call(Call("POST", f"{ADMIN}/generations/{number}/activate"))
        return found

    async def remove_generation(self, number: int) -> None:
        """Remove a generation that is not served."""
        await self.call(Call("DELETE", f"{ADMIN}/generations/{number}"))

    async def stats(self) -> Stats:
        """Figures of the gallery."""
        found: Stats = await self.call(Call("GET", f"{ADMIN}/stats"))
        return found

    async def backup(self, path: Path, *, files: bool = False, on_progress: OnProgress = nothing) -> int:
        """Write one consistent archive of the gallery to a new file, whole or not at all; its bytes."""
        params = {"files": str(files).lower()}
        try:
            async with self._http.stream("GET", f"{ADMIN}/backup", params=params, timeout=None) as stream:
                if stream.status_code >= 400:
                    await stream.aread()
                total = int(calls.checked(stream).headers["content-length"])
                with calls.new_file(path) as f:
                    async for piece in stream.aiter_bytes():
                        f.write(piece)
                        on_progress(f.tell(), total)
        except httpx.TransportError as error:
            raise calls.unreachable(self._url, error) from error
        return total

    async def backups(self) -> list[Backup]:
        """The archives that lie beside the gallery, newest first."""
        found: list[Backup] = await self.call(Call("GET", f"{ADMIN}/backups"))
        return found

    async def keep_backup(self, name: str | None = None, *, files: bool = False) -> Backup:
        """Have the service write an archive beside the gallery."""
        body = {"name": name, "files": files}
        found: Backup = await self.call(Call("POST", f"{ADMIN}/backups", json=body, repeatable=False))
        return found

    async def restore(self, backup: str, *, rebuild: bool = False) -> Job:
        """Start to make the gallery's images those of an archive beside it."""
        body = {"backup": backup, "rebuild": rebuild}
        job: Job = await self.call(Call("POST", f"{ADMIN}/restore", json=body, repeatable=False))
        return job
