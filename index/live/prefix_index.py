"""The index of one prefix length as calibration sees it, whichever engine has it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.plans.plan import IndexSpec, Plan

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


class AnyKind(Protocol):
    """What calibration asks of a kind of index; `faiss_engine.kinds.Kind` says what each means."""

    @property
    def lossy(self) -> bool:
        """Whether it keeps codes approximately; what it finds is then always rescored from the codes themselves."""

    @property
    def exact(self) -> bool:
        """Whether it finds the true nearest neighbours by its prefix when it visits everything."""

    @property
    def has_file(self) -> bool:
        """Whether an index has files of its own; the codes themselves are the index otherwise."""

    @property
    def scores_codes(self) -> bool:
        """Whether every search scores the codes themselves."""

    @property
    def prunes(self) -> bool:
        """Whether, given a lower bound of the results' scores, it skips vectors that cannot reach it."""

    @property
    def is_remote(self) -> bool:
        """Whether another process searches, whose time counts."""

    @property
    def filters(self) -> bool:
        """Whether a search can be limited to some rows."""

    @property
    def min_measured_effort(self) -> int:
        """The smallest effort that a calibration measures."""

    def max_shortlist(self, effort: int | None) -> int | None:
        """Return the longest shortlist that a search of this effort finds without working harder; None: any length."""


class AnyCompactCodes(Protocol):
    """Codes of all rows in fewer bits, from which shortlists are rescored first."""

    @property
    def code_size(self) -> int:
        """Bytes of a code."""

    def score(self, queries: Scores, rows: Rows, *, codes: Codes) -> Scores:
        """Return the inner product of each unit query (q, code_length) with each of its rows (q, m): (q, m)."""


class AnyPrefixIndex(Protocol):
    """The index of one prefix length, over its codes; rows are those of the codes."""

    @property
    def spec(self) -> IndexSpec:
        """Length and kind of the index."""

    @property
    def kind(self) -> AnyKind:
        """Properties of the kind."""

    @property
    def codes(self) -> Codes:
        """The codes of all rows."""

    @property
    def count(self) -> int:
        """Number of rows in the index."""

    @property
    def max_effort(self) -> int | None:
        """The effort at which a search compares every code; None if the kind has no effort."""

    def search_entries(self, queries: Scores, k: int, *, effort: int | None = None) -> Rows:
        """Return the rows of the k nearest entries of the index, (q, k), best first; row -1 if fewer.

        A row may be there twice, as an index may hold it in two lists.
        """

    def run(self, queries: Scores, *, plan: Plan, k: int) -> tuple[Scores, Rows]:
        """Return scores (cosines) and rows of the k nearest by a plan, each (q, at most k), best first."""


class DrawnPrefixIndex(AnyPrefixIndex, Protocol):
    """An index that can be measured under a filter."""

    def drawn(self, share: float) -> AnyPrefixIndex:
        """Return the same index, whose searches may return a share of the rows, those of `index.filters.drawn`."""
