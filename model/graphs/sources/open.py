"""Opening the graph that a SOURCE argument names: by its ending, or by what its folder holds."""

from __future__ import annotations

import importlib
from pathlib import Path

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import PICKLED, GraphSource

# Ending: module with open_file(path). Only the module that is needed is imported, with the libraries that it needs.
_FILES = {
    ".npz": "eigenlens.model.graphs.sources.npz",
    ".graphml": "eigenlens.model.graphs.sources.graphml",
    ".pt": "eigenlens.model.graphs.sources.pyg",
}
_PICKLES = (".pkl", ".pickle", ".gpickle", ".p")
_WOULD_WORK = (
    "give an .npz of an adjacency matrix in CSR parts (adj_*, attr_*, labels) or of edge_index, x and labels; a folder "
    "with edges.csv, .tsv, .parquet or .npy and, if there are features or labels, nodes of one of these endings; a "
    "folder of OGB's node property prediction; a .graphml; or a .pt of PyTorch Geometric"
)


def open_graph_source(spec: str) -> GraphSource:
    """Open a graph. Raises: SourceError, which says what would have worked; ModuleNotFoundError."""
    path = Path(spec).expanduser()
    ending = path.suffix.lower()
    if ending in _PICKLES:
        raise SourceError(f"{path} {PICKLED}")
    if path.is_file() and ending in _FILES:
        module = _FILES[ending]
    elif path.is_dir() and (path / "raw" / "edge.csv.gz").exists():
        module = "eigenlens.model.graphs.sources.ogb"
    elif path.is_dir():
        module = "eigenlens.model.graphs.sources.folder"
    else:
        missing = "is no graph that can be read" if path.exists() else "does not exist"
        raise SourceError(f"{spec} {missing}: {_WOULD_WORK}")
    opened: GraphSource = importlib.import_module(module).open_file(path)
    return opened
