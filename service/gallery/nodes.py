"""Galleries of nodes: their codes, what is kept of them for new neighbours, and a picture of each one's metadata."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.image_ids import check_id
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.node_features import NodeFeatures, RandomFeatures
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.graphs.sparse import SparseRows
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from eigenlens.model.runtime.node_states import NodeState, smooth_new_node
from eigenlens.model.runtime.open import AnyEncoder
from eigenlens.service.api.report import Report
from eigenlens.service.errors import GalleryError, ImageNotFoundError, InputError
from eigenlens.service.gallery.ingest import Outcome, count
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import NewImage

NODE_TYPE = "application/vnd.eigenlens.node"
"""Media type of a node in the gallery's database."""
PICTURE_SIDE = 192
_ROWS = 1024


@dataclass(frozen=True)
class NewNode:
    """A node as a client describes it: features, ids of its neighbours in the gallery, or both.

    Attributes:
        features: numbers, all p of them or by column; None for none.
    """

    id: str
    features: Sequence[float] | Mapping[int, float] | None
    neighbours: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def require_images(encoder: AnyEncoder) -> Encoder:
    """Return an encoder of images. Raises: InputError, if it takes features of nodes."""
    if isinstance(encoder, FeatureEncoder):
        raise InputError("this gallery holds nodes: give `features`, `neighbours`, an id or a code", parameter="image")
    return encoder


def require_nodes(encoder: AnyEncoder) -> FeatureEncoder:
    """Return an encoder of nodes. Raises: InputError, if it takes images."""
    if not isinstance(encoder, FeatureEncoder):
        raise InputError("this gallery holds images, which have no features to send", parameter="features")
    return encoder


def code_of_node(store: Store, encoder: FeatureEncoder, node: NewNode) -> tuple[NDArray[np.float32], NodeState]:
    """Return the code of a new node, (code_length,), and its state.

    Raises: InputError, if the features do not fit the encoder, if what is known of the node makes no difference to
        its codes, or if a neighbour is not in the gallery.
    """
    if encoder.features_of_nodes == 0 and node.features:
        raise InputError("codes are of the edges alone here: give `neighbours`, not features", parameter="features")
    if encoder.hops == 0 and node.features is None:
        raise InputError("codes are of the features alone here: give `features`", parameter="neighbours")
    projection = encoder.project(_dense(node.features, encoder.features)[None])[0]
    if encoder.hops == 0:
        return encoder.finish(projection[None])[0], NodeState(len(node.neighbours), np.zeros((0, 0), dtype=np.float32))
    states = []
    for id in dict.fromkeys(node.neighbours):
        try:
            states.append(NodeState.from_bytes(store.content(store.record(id).key), hops=encoder.hops))
        except ImageNotFoundError as error:
            raise InputError(str(error), parameter="neighbours") from None
    smoothed, state = smooth_new_node(projection, states, hops=encoder.hops)
    return encoder.finish(smoothed[None])[0], state


def ingest_nodes(store: Store, encoder: FeatureEncoder, nodes: Sequence[NewNode]) -> list[Outcome]:
    """Store nodes with their codes, in their order: a node may name an earlier one as its neighbour.

    Returns: one outcome for each node, in their order; one that does not fit does not stop the others.
    """
    outcomes = []
    for node in nodes:
        try:
            code, state = code_of_node(store, encoder, node)
        except InputError as error:
            outcomes.append(Outcome(node.id, "failed", str(error)))
            continue
        outcomes += _put(store, encoder, [_new_image(node.id, node.metadata, code, state)], keep_metadata=False)
    return outcomes


def add_graph(gallery: Gallery, encoder: FeatureEncoder, graph: Graph, progress: Progress) -> Report:
    """Store all nodes of a graph with their codes, batch by batch; nodes that have not changed are skipped.

    Raises: GalleryError, if the encoder takes other features than the graph has.
    """
    report = Report()
    progress.start("smooth", graph.count)
    with tempfile.TemporaryDirectory(dir=gallery.root, prefix=".levels-") as work:
        levels = _levels(encoder, graph, Path(work), progress)
        nodes = graph.nodes()
        progress.start("take in", graph.count)
        for start in range(0, graph.count, _ROWS):
            stop = min(start + _ROWS, graph.count)
            rows = np.stack([level[start:stop] for level in levels], axis=1)
            codes = encoder.finish(rows[:, -1])
            batch = []
            for place, (id, metadata) in zip(range(stop - start), nodes, strict=False):
                try:
                    id = check_id(id)
                except ValueError as error:
                    count(report, [Outcome(id, "failed", str(error))])
                    continue
                state = NodeState(int(graph.degrees[start + place]), rows[place, :-1])
                batch.append(_new_image(id, metadata, codes[place], state))
            count(report, _put(gallery.store, encoder, batch, keep_metadata=True))
            progress.advance(stop - start)
    return report


def _levels(encoder: FeatureEncoder, graph: Graph, work: Path, progress: Progress) -> list[NDArray[np.float32]]:
    """Return the projections of all nodes and what each smoothing makes of them, (count, columns) each, on disk."""
    shape = (graph.count, encoder.projection_length)
    levels: list[NDArray[np.float32]] = [
        np.memmap(work / str(level), dtype=np.float32, mode="w+", shape=shape) for level in range(encoder.hops + 1)
    ]
    for start, features in _features(encoder, graph):
        levels[0][start : start + len(features)] = encoder.project(features)
        progress.advance(len(features))
    smoother = Smoother(graph)
    for before, after in pairwise(levels):
        for start in range(0, encoder.projection_length, smoother.columns_at_once):
            columns = slice(start, start + smoother.columns_at_once)
            after[:, columns] = smoother.smooth(before[:, columns].copy(), 1)
    return levels


def _features(encoder: FeatureEncoder, graph: Graph) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield features of the graph's nodes in blocks, dense, as the encoder takes them. Raises: GalleryError."""
    drawn: NodeFeatures | None = None
    if encoder.random_features is not None:
        drawn = RandomFeatures(graph, seed=encoder.random_features, columns=encoder.features)
    columns = graph.feature_count if drawn is None else drawn.columns
    if columns != encoder.features:
        raise GalleryError(f"the encoder takes {encoder.features} features, and {graph.name} has {columns}")
    for start in range(0, graph.count, _ROWS):
        stop = min(start + _ROWS, graph.count)
        rows = graph.features(start, stop) if drawn is None else drawn.rows(start, stop)
        yield start, rows.to_dense() if isinstance(rows, SparseRows) else np.array(rows, dtype=np.float32)


def _dense(features: Sequence[float] | Mapping[int, float] | None, count: int) -> NDArray[np.float32]:
    """Return features as an array, (count,). Raises: InputError."""
    dense = np.zeros(count, dtype=np.float32)
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite, which is refused below
        if isinstance(features, Mapping):
            columns = np.array(list(features), dtype=np.int64)
            if len(columns) and not 0 <= columns.min() <= columns.max() < count:
                raise InputError(f"a node has features 0 to {count - 1}", parameter="features")
            dense[columns] = list(features.values())
        elif features is not None:
            if len(features) != count:
                raise InputError(f"a node has {count} features, not {len(features)}", parameter="features")
            dense[:] = features
    if not np.isfinite(dense).all():
        raise InputError("features are finite numbers", parameter="features")
    return dense


def _put(store: Store, encoder: FeatureEncoder, nodes: Sequence[NewImage], *, keep_metadata: bool) -> list[Outcome]:
    """Store nodes in one transaction, but for those that have not changed."""
    changed = [
        node
        for node in nodes
        if not store.holds(
            node.id, checksum=node.sha256, path=None, metadata=None if keep_metadata else dict(node.metadata)
        )
    ]
    replaced = dict(zip([node.id for node in changed], store.put(changed, encoder_id=encoder.id), strict=True))
    return [
        Outcome(node.id, "unchanged" if node.id not in replaced else "replaced" if replaced[node.id] else "added")
        for node in nodes
    ]


def _new_image(id: str, metadata: Mapping[str, Any], code: NDArray[np.float32], state: NodeState) -> NewImage:
    data = state.to_bytes()
    return NewImage(
        id=id,
        media_type=NODE_TYPE,
        width=PICTURE_SIDE,
        height=PICTURE_SIDE,
        sha256=sha256(data + code.astype("<f4").tobytes()).hexdigest(),
        metadata=dict(metadata),
        code=code,
        data=data,
    )
