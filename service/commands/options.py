"""Options that commands and the rebuild's process share, as argparse types."""

from __future__ import annotations

import argparse

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.kinds import require_kind


def parse_lengths(text: str) -> list[int]:
    """Numbers separated by commas."""
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of lengths such as 8,16,32")
    return lengths


def parse_kinds(text: str) -> dict[int, str]:
    """LENGTH=KIND separated by commas."""
    kinds: dict[int, str] = {}
    for part in text.split(","):
        length, separator, kind = part.partition("=")
        if not separator or not length.strip().isdigit():
            raise argparse.ArgumentTypeError(f"'{part}' is not LENGTH=KIND, such as 64=ivf-sq8")
        try:
            kinds[int(length)] = require_kind(kind.strip()).name
        except IndexKindError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return kinds
