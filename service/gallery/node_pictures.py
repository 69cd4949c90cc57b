"""Pictures of nodes: a card of the metadata of each, so that wherever an image is shown a node can be too."""

from __future__ import annotations

from html import escape
from typing import Any

from eigenlens.service.gallery.nodes import PICTURE_SIDE
from eigenlens.service.gallery.store.records import ImageRecord
from eigenlens.service.gallery.thumbnails import Thumbnail

_LINES = 8
_CHARACTERS = 27
_MARGIN, _FIRST, _STEP = 10, 28, 19
_NAMES = ("title", "name", "label")


def draw_node(record: ImageRecord) -> Thumbnail:
    """Draw a node: its name, and below it what else is known of it, a line each."""
    name = next((str(record.metadata[key]) for key in _NAMES if key in record.metadata), record.id)
    lines = [f"{key}: {_text(value)}" for key, value in record.metadata.items() if str(value) != name]
    if name != record.id:
        lines.insert(0, record.id)
    hue = int(record.sha256[:4], 16) % 360 if "label" not in record.metadata else _hue(str(record.metadata["label"]))
    rows = "".join(
        f'<text x="{_MARGIN}" y="{_FIRST + _STEP * (row + 1)}" font-size="12">{escape(_cut(line))}</text>'
        for row, line in enumerate(lines[:_LINES])
    )
    side = PICTURE_SIDE
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" viewBox="0 0 {side} {side}" '
        f'font-family="sans-serif" fill="#1b1b1b"><rect width="{side}" height="{side}" fill="hsl({hue} 45% 88%)"/>'
        f'<text x="{_MARGIN}" y="{_FIRST}" font-size="14" font-weight="bold">{escape(_cut(name))}</text>{rows}</svg>'
    )
    return Thumbnail(picture.encode(), "image/svg+xml")


def _hue(label: str) -> int:
    """Return a colour of a label, the same in every process."""
    return sum(137 * byte for byte in label.encode()) % 360


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str) -> str:
    text = "".join(character for character in text if character.isprintable())  # XML has no control characters
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
