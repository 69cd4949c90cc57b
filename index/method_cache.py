"""Caches of methods that leave their object free to go."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast
from weakref import WeakMethod

P = ParamSpec("P")
T = TypeVar("T")


def cache_of(method: Callable[P, T], size: int) -> Callable[P, T]:
    """Return a bound method with a cache of its last results; the arguments are hashable.

    An `lru_cache` of a bound method that its object keeps is a cycle: the object, such as a generation of gigabytes,
    would stay until a garbage collection looks through all that there is.

        self._cached_selection = cache_of(self._select, 32)
    """
    reference = WeakMethod(method)

    @lru_cache(size)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = reference()
        assert bound is not None, "whoever calls has the object"
        return bound(*args, **kwargs)

    return cast(Callable[P, T], call)
