"""FAISS's arrays as views of numpy's: nothing is copied, whether the array is in memory or mapped from a file."""

from __future__ import annotations

from typing import Any

import faiss
from numpy.typing import NDArray


def set_view(held: Any, array: NDArray[Any]) -> None:
    """Let a FAISS vector (MaybeOwnedVector) read `array`, which has to be kept as long as the index.

    FAISS makes such views of files that it maps itself, but has no call to make one of an array.
    """
    pointer = faiss.swig_ptr(array)
    held.is_owned = False
    held.view_data, held.view_size = pointer, array.size
    held.c_ptr, held.c_size = pointer, array.size
