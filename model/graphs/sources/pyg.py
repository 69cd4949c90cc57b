"""Graphs in a .pt of PyTorch Geometric: a dictionary of tensors, read with `weights_only` alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.npz import from_arrays, has_meaning
from eigenlens.model.graphs.sources.source import GraphSource

_SAFE = (
    "where you trust it, save its tensors alone: torch.save({k: v for k, v in data if torch.is_tensor(v)}, 'graph.pt')"
)


def open_file(path: Path) -> GraphSource:
    """Open a dictionary with edge_index and, if there are any, x and y. Raises: SourceError."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(f"{path} holds more than tensors, and reading that can run any program; {_SAFE}") from error
    except Exception as error:  # a damaged file makes torch raise errors of many kinds
        raise SourceError(f"{path} is no readable .pt: {error}") from error
    if isinstance(loaded, (tuple, list)) and loaded:
        loaded = loaded[0]  # the (data, slices) of a data set of one graph
    if not isinstance(loaded, dict):
        raise SourceError(f"{path} holds a {type(loaded).__name__}, not a dictionary of tensors; {_SAFE}")
    arrays = {
        name: _array(value, name=f"{path}: {name}")
        for name, value in loaded.items()
        if isinstance(value, torch.Tensor) and isinstance(name, str) and has_meaning(name)
    }
    return from_arrays(arrays, name=path.stem)


def _array(tensor: torch.Tensor, *, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = tensor.numpy(force=True)
    except (TypeError, RuntimeError) as error:
        kind = f"{tensor.dtype} in {tensor.layout}".replace("torch.", "")
        raise SourceError(f"{name} is {kind}, which NumPy has not; save it dense, as int64 or float32") from error
    return array
