"""Graphs in GraphML, through networkx: attributes feature_* of nodes are features, `label` the label."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree.ElementTree import ParseError

import networkx
import numpy as np

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import GraphSource, chunks_of_edges
from eigenlens.model.graphs.sources.tables import node_columns


def open_file(path: Path) -> GraphSource:
    """Open a GraphML file. Raises: SourceError."""
    try:
        graph = networkx.read_graphml(path)
    except (ParseError, networkx.NetworkXError, ValueError, KeyError) as error:
        raise SourceError(f"{path} is no readable GraphML: {error}") from None
    ids = tuple(str(node) for node in graph)
    rows = {node: row for row, node in enumerate(graph)}
    edges = np.array([(rows[a], rows[b]) for a, b in graph.edges()], dtype=np.int64).reshape(-1, 2)
    attributes = [graph.nodes[node] for node in graph]
    names = sorted({name for values in attributes for name in values})
    table = {name: [values.get(name, "") for values in attributes] for name in names}
    nodes = node_columns({"id": list(ids), **table}, name=path.name)
    return nodes.to_source(path.stem, partial(chunks_of_edges, edges))
