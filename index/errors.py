"""Errors of the index package."""

from __future__ import annotations

from eigenlens.artifact import EigenlensError


class SearchError(EigenlensError):
    """Root of the index package's errors."""


class PrefixLengthError(SearchError, ValueError):
    """The gallery was not built with this prefix length."""

    def __init__(self, requested: int, available: tuple[int, ...]) -> None:
        super().__init__(f"prefix length {requested} was not built; available: {', '.join(map(str, available))}")
        self.requested, self.available = requested, available


class LengthRangeError(SearchError, ValueError):
    """A prefix length to build is below 1 or above the code's."""

    def __init__(self, requested: int, *, code_length: int) -> None:
        super().__init__(
            f"prefix length {requested} cannot be built: codes have {code_length} coordinates; give 1 to {code_length}"
        )
        self.requested, self.code_length = requested, code_length


class RerankLengthError(SearchError, ValueError):
    """A rerank has to use more coordinates than the prefix, and no more than the code has."""

    def __init__(self, requested: int, *, prefix_length: int, code_length: int) -> None:
        super().__init__(
            f"rerank at {requested} coordinates is not possible after a search of {prefix_length}; "
            f"give a number from {prefix_length + 1} to {code_length}"
            if prefix_length < code_length
            else f"rerank at {requested} coordinates is not possible: the search already uses all {code_length}"
        )


class RerankNotStoredError(RerankLengthError):
    """The engine has no vectors of the length that a rerank asks for."""

    def __init__(self, requested: int, available: tuple[int, ...]) -> None:
        ValueError.__init__(
            self,
            f"the backend qdrant has no vectors of {requested} coordinates to rerank by; it has "
            f"{', '.join(map(str, available))}: give one of these, or build the length too",
        )
        self.requested, self.available = requested, available


class ResultCountError(SearchError, ValueError):
    """k or the shortlist is out of bounds."""


class CodesError(SearchError, ValueError):
    """Codes have a shape or values that cannot be indexed."""


class IndexKindError(SearchError, ValueError):
    """There is no such kind of index, or not for this length."""


class EffortError(SearchError, ValueError):
    """An effort for an index that has none, or below 1."""


class PlanConflictError(SearchError, ValueError):
    """Parts of a plan are given together with targets that a plan is chosen for."""


class EngineUnavailableError(SearchError):
    """The search engine is another process, and does not answer, or not with all of its codes."""


class NoGpuError(SearchError):
    """A GPU was asked for, and FAISS sees none."""


class FilterError(SearchError, ValueError):
    """A filter on metadata is not understood, or is too large."""


class SimilarityError(SearchError, ValueError):
    """A percentile of similarity is asked for where the gallery's own similarities were not measured."""


class TargetError(SearchError, ValueError):
    """No plan meets the recall and the latency that were asked for; the message says what can be had."""
