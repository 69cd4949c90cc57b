"""The report of a run that takes images in, the same from build, import, sync, add and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from eigenlens.image_files import Skipped, count_kinds, describe_counts
from eigenlens.image_ids import escape_bytes
from eigenlens.service.api.answer import AnswerModel

_LISTS = ("failed", "notes", "skipped_files", "warnings", "changes")


class SkippedAnswer(AnswerModel):
    """What was left out of a folder, and what it is."""

    path: str
    kind: str


class RefusedAnswer(AnswerModel):
    """An image that could not be used."""

    id: str
    reason: str


class NotedAnswer(AnswerModel):
    """An image that was taken, and what should be known of it."""

    id: str
    note: str


class ChangeAnswer(AnswerModel):
    """A change that a sync would make; `was` is the id that a moved image has now."""

    id: str
    change: str
    was: str | None = None


class Report(AnswerModel):
    """What became of the files of a run."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    moved: int = Field(0, description="images whose file has another name now; they keep code and metadata")
    gone: int = Field(0, description="images whose file is not there any more; they were removed")
    failed: list[RefusedAnswer] = Field(default_factory=list)
    notes: list[NotedAnswer] = Field(default_factory=list)
    skipped: dict[str, int] = Field(default_factory=dict, description="what else was there, counted by its kind")
    skipped_files: list[SkippedAnswer] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    changes: list[ChangeAnswer] = Field(default_factory=list, description="of a dry run: what would be done")

    def skip(self, skipped: Iterable[Skipped]) -> None:
        """Add what was left out."""
        self.skipped_files += [SkippedAnswer(path=escape_bytes(entry.path), kind=entry.kind) for entry in skipped]
        self.skipped = count_kinds([Skipped(entry.path, entry.kind) for entry in self.skipped_files])

    @property
    def taken(self) -> int:
        """Return the number of images that are in the gallery because of this run or were there already."""
        return self.added + self.replaced + self.unchanged + self.moved

    def sentence(self) -> str:
        """Return the report as one line: `3 added, 0 replaced, 5 unchanged, 0 gone, skipped: 12 video, 3 RAW`."""
        parts = [f"{self.added} added", f"{self.replaced} replaced", f"{self.unchanged} unchanged"]
        parts += [f"{self.moved} moved"] if self.moved else []
        parts += [f"{self.gone} gone", f"{len(self.failed)} failed"]
        parts += [f"skipped: {describe_counts(self.skipped)}"] if self.skipped else []
        return ", ".join(parts)

    def details(self, *, limit: int | None = None) -> list[str]:
        """Return a line for each warning, failed image, note and skipped file, at most `limit` of each kind."""
        lines = list(self.warnings)
        lines += _first([f"failed: {entry.id}: {entry.reason}" for entry in self.failed], limit)
        lines += _first([f"note: {entry.id}: {entry.note}" for entry in self.notes], limit)
        lines += _first([_change(entry) for entry in self.changes], limit)
        if limit is None:
            lines += [f"skipped: {entry.path}: {entry.kind}" for entry in self.skipped_files]
        return lines

    def shortened(self, limit: int) -> Report:
        """Return the report with at most `limit` entries in each of its lists; the counts stay."""
        lists = {name: getattr(self, name)[:limit] for name in _LISTS}
        return self.model_copy(update=lists)


def merge_reports(reports: Sequence[Report]) -> Report:
    """Return one report of several runs."""
    whole = Report()
    for report in reports:
        for name in ("added", "replaced", "unchanged", "moved", "gone"):
            setattr(whole, name, getattr(whole, name) + getattr(report, name))
        for name in _LISTS:
            getattr(whole, name).extend(getattr(report, name))
    whole.skip([])
    return whole


def _change(entry: ChangeAnswer) -> str:
    return f"{entry.change}: {entry.id}" + (f" (was {entry.was})" if entry.was else "")


def _first(lines: list[str], limit: int | None) -> list[str]:
    if limit is None or len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more; --list names all"]
