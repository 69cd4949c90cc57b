"""FAISS vectors as views of numpy arrays, without a copy, in memory or mapped from a file."""

from __future__ import annotations

from typing import Any

import faiss
from numpy.typing import NDArray


def set_view(vector: Any, array: NDArray[Any]) -> None:
    """Let a FAISS vector (MaybeOwnedVector) read `array`, which the caller keeps as long as the index.

    FAISS makes such views of files that it maps itself, but has no function to make one of an array.
    """
    pointer = faiss.swig_ptr(array)
    vector.is_owned = False
    vector.view_data, vector.view_size = pointer, array.size
    vector.c_ptr, vector.c_size = pointer, array.size
