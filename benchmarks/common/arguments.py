"""Types of the benchmarks' arguments."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Parse a number from 1. Raises: ArgumentTypeError."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """Parse numbers from 1 that commas separate; none from an empty text. Raises: ArgumentTypeError."""
    return tuple(positive(part) for part in text.split(",")) if text else ()
