"""Two checkouts of this project, measured in turn: what a change of the code costs or gains."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eigenlens.artifact import EigenlensError

# Earlier revisions have their packages at the top.
_WHERE = """
try:
    import eigenlens.index as index
except ImportError:
    import index
print(index.__file__)
"""


class RevisionError(EigenlensError):
    """A checkout cannot be measured."""


@dataclass(frozen=True)
class Revision:
    """A checkout whose code is run by this process's interpreter: the libraries are the same for all revisions.

    Attributes:
        name: "before" or "after", the method's name in the records.
    """

    name: str
    checkout: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment in which Python imports this checkout, and nothing from its working directory."""
        return os.environ | {"PYTHONPATH": str(self.checkout), "PYTHONSAFEPATH": "1"} | more

    def describe(self) -> str:
        """Return the commit, with "-dirty" where the checkout differs from it."""
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=self.checkout, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or "unknown"

    def require_importable(self) -> None:
        """Raise RevisionError unless Python imports this checkout's code."""
        done = subprocess.run(
            [sys.executable, "-c", _WHERE], env=self.environment(), capture_output=True, text=True, check=False
        )
        where = Path(done.stdout.strip() or "/").resolve()
        if done.returncode or self.checkout.resolve() not in where.parents:
            raise RevisionError(f"{self.checkout} is no checkout whose code can be imported: {done.stderr or where}")


def add_revision_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --before and --after."""
    for name in ("before", "after"):
        parser.add_argument(f"--{name}", metavar="CHECKOUT", type=Path, required=True, help=f"the code {name}")


def revisions_of(args: argparse.Namespace) -> tuple[Revision, Revision]:
    """Return the revisions that the arguments name. Raises: RevisionError."""
    revisions = Revision("before", args.before.resolve()), Revision("after", args.after.resolve())
    for revision in revisions:
        revision.require_importable()
    return revisions


def alternating(revisions: Sequence[Revision], number: int) -> Sequence[Revision]:
    """Return the order of a round: each revision is the first one in turn."""
    first = number % len(revisions)
    return [*revisions[first:], *revisions[:first]]


def ratios(rounds: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Return after / before of each round's value: the median of these ratios and their quartiles."""
    each = np.asarray(rounds["after"]) / np.asarray(rounds["before"])
    median, low, high = (float(np.percentile(each, q)) for q in (50, 25, 75))
    return median, low, high
