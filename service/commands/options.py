"""Parsers of the options --lengths and --kinds, as argparse types; the process of a rebuild uses them too."""

from __future__ import annotations

import argparse

from eigenlens.index.errors import IndexKindError


def parse_lengths(text: str) -> list[int]:
    """Parse lengths separated by commas."""
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of lengths such as 8,16,32")
    return lengths


def parse_kinds(text: str) -> dict[int, str]:
    """Parse LENGTH=KIND separated by commas; it does not check that the kinds exist."""
    kinds: dict[int, str] = {}
    for part in text.split(","):
        length, separator, kind = part.partition("=")
        if not separator or not length.strip().isdigit():
            raise argparse.ArgumentTypeError(f"'{part}' is not LENGTH=KIND, such as 64=ivf-sq8")
        kinds[int(length)] = kind.strip()
    return kinds


def parse_known_kinds(text: str) -> dict[int, str]:
    """Parse LENGTH=KIND separated by commas, and check that the kinds exist."""
    from eigenlens.index.faiss_engine.kinds import require_kind  # needs FAISS, which a client does not have

    try:
        return {length: require_kind(kind).name for length, kind in parse_kinds(text).items()}
    except IndexKindError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
