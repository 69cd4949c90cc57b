"""Options that commands and the rebuild's process share, as argparse types."""

from __future__ import annotations

import argparse

from eigenlens.index.errors import IndexKindError


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
    """Return LENGTH=KIND separated by commas as a mapping. Whether there is such a kind, the builder says."""
    kinds: dict[int, str] = {}
    for part in text.split(","):
        length, separator, kind = part.partition("=")
        if not separator or not length.strip().isdigit():
            raise argparse.ArgumentTypeError(f"'{part}' is not LENGTH=KIND, such as 64=ivf-sq8")
        kinds[int(length)] = kind.strip()
    return kinds


def parse_known_kinds(text: str) -> dict[int, str]:
    """Return what `parse_kinds` does, of kinds that can be built here."""
    from eigenlens.index.faiss_engine.kinds import require_kind  # needs FAISS, and asking a service does not

    try:
        return {length: require_kind(kind).name for length, kind in parse_kinds(text).items()}
    except IndexKindError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
