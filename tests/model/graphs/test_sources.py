"""Sources of graphs: every format gives the same graph, and each fault has a sentence."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs import two_passes
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sources import source as chunking
from eigenlens.model.graphs.sources.open import open_graph_source
from eigenlens.model.graphs.two_passes import import_graph

EDGES = [(0, 1), (1, 2), (0, 2), (2, 3)]
NEIGHBOURS = [[1, 2], [0, 2], [0, 1, 3], [2], []]
FEATURES = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [1, 0, 1], [0.5, 0, 0]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 0, 1])


def write_npz_csr(path: Path) -> Path:
    rows, columns = np.nonzero(FEATURES)
    np.savez(
        path / "graph.npz",
        adj_indptr=[0, 2, 3, 4, 4, 4],
        adj_indices=[1, 2, 2, 3],
        adj_shape=[5, 5],
        attr_data=FEATURES[rows, columns],
        attr_indices=columns,
        attr_indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=5))]),
        attr_shape=[5, 3],
        labels=LABELS,
    )
    return path / "graph.npz"


def write_npz_arrays(path: Path) -> Path:
    np.savez(path / "graph.npz", edge_index=np.array(EDGES).T, x=FEATURES, y=LABELS)
    return path / "graph.npz"


def write_csv(path: Path) -> Path:
    (path / "edges.csv").write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in EDGES))
    lines = [f"{label}," + ",".join(map(str, row)) for label, row in zip(LABELS, FEATURES.tolist(), strict=True)]
    (path / "nodes.csv").write_text("label,feature_0,feature_1,feature_2\n" + "\n".join(lines) + "\n")
    return path


def write_tsv_with_ids(path: Path) -> Path:
    (path / "edges.tsv").write_text("from\tto\n" + "".join(f"n{a}\tn{b}\n" for a, b in EDGES))
    lines = [f"n{row}\t{LABELS[row]}\t" + "\t".join(map(str, FEATURES[row].tolist())) for row in range(5)]
    (path / "nodes.tsv").write_text("id\tlabel\tf0\tf1\tf2\n" + "\n".join(lines) + "\n")
    return path


def write_parquet(path: Path) -> Path:
    a, b = zip(*EDGES, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"a": a, "b": b}), path / "edges.parquet")
    table = pyarrow.table({"features": FEATURES.tolist(), "label": LABELS.tolist()})
    pyarrow.parquet.write_table(table, path / "nodes.parquet")
    return path


def write_npy(path: Path) -> Path:
    np.save(path / "edges.npy", np.array(EDGES))
    np.save(path / "nodes.npy", FEATURES)
    np.save(path / "labels.npy", LABELS)
    return path


def write_ogb(path: Path) -> Path:
    (path / "raw").mkdir()
    contents = {"edge": EDGES, "num-node-list": [[5]], "node-feat": FEATURES, "node-label": LABELS[:, None]}
    for name, rows in contents.items():
        with gzip.open(path / "raw" / f"{name}.csv.gz", "wt") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in np.asarray(rows).tolist())
    return path


def write_graphml(path: Path) -> Path:
    graph = networkx.Graph()
    for row in range(5):
        values = {f"feature_{place}": float(x) for place, x in enumerate(FEATURES[row])}
        graph.add_node(row, label=int(LABELS[row]), **values)
    graph.add_edges_from(EDGES)
    networkx.write_graphml_xml(graph, path / "graph.graphml")
    return path / "graph.graphml"


def write_pyg(path: Path) -> Path:
    tensors = {"edge_index": torch.tensor(EDGES).T, "x": torch.from_numpy(FEATURES), "y": torch.from_numpy(LABELS)}
    torch.save(tensors, path / "graph.pt")
    return path / "graph.pt"


def import_from(path: Path, spec: Path | None = None) -> Graph:
    return import_graph(open_graph_source(str(spec or path)), path / "imported")


@pytest.mark.parametrize(
    "write",
    [
        write_npz_csr,
        write_npz_arrays,
        write_csv,
        write_tsv_with_ids,
        write_parquet,
        write_npy,
        write_ogb,
        write_graphml,
        write_pyg,
    ],
)
def test_every_format_gives_the_same_graph(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "ROWS_PER_CHUNK", 2)
    monkeypatch.setattr(chunking, "EDGES_PER_CHUNK", 3)
    monkeypatch.setattr(two_passes, "_ENTRIES_PER_BLOCK", 3)
    graph = import_from(tmp_path, write(tmp_path))
    assert [graph.neighbours(node).tolist() for node in range(graph.count)] == NEIGHBOURS
    assert (graph.count, graph.edges, graph.feature_count) == (5, 4, 3)
    features = graph.features(0, 5)
    assert features is not None
    dense = features if isinstance(features, np.ndarray) else features.to_dense()
    np.testing.assert_array_equal(dense, FEATURES)
    part = graph.features(2, 4)
    assert part is not None
    np.testing.assert_array_equal(part if isinstance(part, np.ndarray) else part.to_dense(), FEATURES[2:4])
    assert graph.labels is not None
    assert graph.labels.tolist() == LABELS.tolist()
    assert graph.faults[-1] == "1 node without an edge: of these the features alone count"


def write_arrays(path: Path, **arrays: Any) -> Path:
    np.savez(path / "graph.npz", **arrays)
    return path / "graph.npz"


ODD = {"edges": np.array([(0, 1), (1, 0), (1, 2), (1, 2), (3, 3), (2, 0)]), "labels": np.array([0, -1, 2, -1, 1])}


def test_what_is_put_right_is_said(tmp_path: Path) -> None:
    graph = import_from(tmp_path, write_arrays(tmp_path, **ODD, x=np.eye(5)[:, :3]))
    assert [graph.neighbours(node).tolist() for node in range(5)] == [[1, 2], [0, 2], [0, 1], [], []]
    assert graph.faults == (
        "1 edge from a node to itself: left out, S has one for each node",
        "1 edge listed before: counted once",
        "the edges are directed: 2 of 3 have none in the other direction; all count in both",
        "2 nodes without an edge: of these the features alone count",
        "2 nodes with features that are all zero: of these the edges alone count",
        "2 nodes without a label: left out where labels are compared",
    )


def test_a_graph_without_features_or_edges_is_read(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("0,1\n3,1\n")
    graph = import_from(tmp_path)
    assert (graph.count, graph.edges, graph.feature_count, graph.labels) == (4, 2, 0, None)
    assert graph.faults == (
        "every edge is listed in one direction: taken in both",
        "1 node without an edge: nothing tells what these are like",
        "no features: fit it with the preset structure-only",
    )
    (tmp_path / "alone").mkdir()
    alone = import_from(tmp_path / "alone", write_arrays(tmp_path, edges=np.zeros((0, 2), int), x=np.eye(3)))
    assert (alone.count, alone.edges) == (3, 0)


def test_ids_labels_and_metadata_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("a,b\nx,y\n")
    (tmp_path / "nodes.csv").write_text("id,label,title,year\nx,page,One,1999\ny,,Two,\n")
    graph = import_from(tmp_path)
    assert list(graph.nodes()) == [("x", {"label": "page", "title": "One", "year": 1999}), ("y", {"title": "Two"})]
    assert graph.label_names == ("page",)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"edges": [(0, 1), (1, 5)], "x": np.eye(3)}, r"edge 2 joins 1 and 5; its nodes are 0 to 2"),
        ({"edges": [(0, -1)], "x": np.eye(3)}, r"edge 1 joins 0 and -1"),
        ({"edges": [(0, 1)], "x": np.array([[1.0], [np.nan]])}, r"a feature of node 1 is NaN"),
        ({"edges": [(0, 0.5)], "x": np.eye(2)}, r"holds fractions"),
        ({"edges": [(0, 1, 2)], "x": np.eye(3)}, r"pairs of rows of nodes"),
        ({"x": np.eye(3)}, r"has no edges: .* it has x"),
        ({"edges": [(0, 1)], "x": np.eye(3), "labels": [1, 2]}, r"one label for each of 3 nodes"),
        ({"edges": [(0, 1)], "x": np.eye(2), "ids": ["a", "a"]}, r"1 different ids"),
        ({"adj_indptr": [0, 2, 1], "adj_indices": [0]}, r"adj_indptr does not fit"),
        ({"adj_indptr": [0, 1, 1], "adj_indices": [1.5]}, r"adj_indices is float64 .* a list of whole numbers"),
        ({"adj_indptr": [0, 1, 1], "adj_indices": [[1]]}, r"adj_indices is int64 of the shape \(1, 1\)"),
        ({"adj_indptr": 3, "adj_indices": [0]}, r"adj_indptr is int64 of the shape \(\)"),
        ({"edges": [(0, 1)], "attr_indptr": [0, 1]}, r"has no attr_indices, which belongs to attr_indptr"),
        (
            {"edges": [(0, 1)], "attr_indptr": [0, 1], "attr_indices": [0], "attr_data": ["a"]},
            r"attr_data has the shape",
        ),
        ({"edges": [(0, 1)], "attr_indptr": [0, 1], "attr_indices": [0], "attr_shape": 3}, r"attr_shape is int64"),
        ({"edges": [(0, 1)], "feature_rows": [0, -1], "feature_cols": [0, 1]}, r"a row of a node and a column"),
        ({"edges": [(0, 1)], "num_nodes": "abc"}, r"num_nodes is <U3"),
        ({"edges": [(0, 1)], "num_nodes": [2, 3]}, r"num_nodes has the shape \(2,\); it is one number"),
        ({"edges": [(0, 1)], "labels": 3}, r"labels has the shape \(\)"),
        ({"edges": [(0, 1)], "labels": [np.inf, 1.0]}, r"labels holds fractions, or more than"),
        ({"edges": [(0, np.nan)]}, r"holds fractions"),
        ({"edges": [(0, 1)], "x": np.array([[1.0], [1e300]])}, r"a feature of node 1 is NaN or infinite"),
    ],
)
def test_a_fault_is_refused_with_a_sentence(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=sentence):
        import_from(tmp_path, write_arrays(tmp_path, **arrays))
    assert not (tmp_path / "imported").exists()


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_no_pickle_is_read_and_the_safe_way_is_told(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    objects: NDArray[Any] = np.array([Harmful(mark)], dtype=object)
    (tmp_path / "graph.pkl").write_bytes(pickle.dumps(Harmful(mark)))
    np.savez(tmp_path / "graph.npz", edges=objects)
    torch.save(Harmful(mark), tmp_path / "graph.pt")
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "edges.npy", objects)
    for name in ("graph.pkl", "graph.npz", "graph.pt", "folder"):
        with pytest.raises(SourceError, match=r"any program.*(np\.savez|torch\.save)"):
            open_graph_source(str(tmp_path / name))
    assert not mark.exists()


HUGE = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'fortran_order': False, 'shape': (999999999999, 2), }  \n"


def write_member(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, data)


def write_damaged(path: Path) -> None:
    np.savez_compressed(path, edges=np.random.default_rng(0).integers(0, 9, (1000, 2)))
    data = path.read_bytes()
    path.write_bytes(data[:300] + bytes(80) + data[380:])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_bytes(b"garbage" * 10), "no archive of arrays"),
        (lambda path: path.write_bytes(b""), "no archive of arrays"),
        (lambda path: write_member(path, "edges", b"garbage"), "edges is no array"),
        (lambda path: write_member(path, "edges.npy", HUGE), "Unable to allocate"),
        (write_damaged, "while decompressing"),
    ],
)
def test_an_npz_that_cannot_be_read_is_refused(write: Any, sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "graph.npz")
    with pytest.raises(SourceError, match=sentence):
        open_graph_source(str(tmp_path / "graph.npz"))


@pytest.mark.parametrize(
    "change",
    [lambda tensor: tensor.bfloat16(), lambda tensor: tensor.to_sparse(), lambda tensor: tensor.to("meta")],
)
def test_a_tensor_that_is_no_array_is_refused_if_it_is_used(
    change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    features = change(torch.eye(3))
    edges = torch.tensor(EDGES[:2]).T
    for name in ("x", "train_mask"):
        torch.save({"edge_index": edges, name: features}, tmp_path / f"{name}.pt")
    with pytest.raises(SourceError, match=r"x is .* which NumPy has not; save it dense"):
        open_graph_source(str(tmp_path / "x.pt"))
    assert open_graph_source(str(tmp_path / "train_mask.pt")).count == 3


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "it has no edges.csv"),
        ({"edges.csv": "0,1\n", "edges.tsv": ""}, "keep one of them"),
        ({"edges.csv": "a,b\nx,z\n", "nodes.csv": "id\nx\ny\n"}, "ends at 'z', and no node has this id"),
        ({"edges.csv": "a,b\nx,z\n"}, "an edge ends at 'x'; without a column `id` in nodes, ends are rows"),
        ({"edges.csv": "0 1\n1 2\n"}, "cannot be read: an edge has two columns, parted by commas, and a line is '1 2"),
        ({"edges.tsv": "a,b\n1,2\n"}, "cannot be read: an edge has two columns, parted by tabs, and a line is '1,2'"),
        ({"edges.csv": "0,1\n", "nodes.csv": "id,f0\nx,1\nx,2\n"}, "'x' is there twice"),
        ({"edges.csv": "0,1\n", "nodes.csv": "f0\n1\nlong\n"}, "f0 of node 1 is 'long'; features are numbers"),
        ({"edges.csv": "0,1\n", "nodes.csv": "f0,f1\n1,\n2,3\n"}, "f1 of node 0 is empty; features are numbers"),
        ({"edges.csv": "0,1\n", "nodes.csv": "f0,f1\n1\n"}, "has 2 columns"),
        ({"edges.csv": "0,99999999999999999999999\n"}, "an edge ends at '9{23}'; without"),
        ({"edges.csv": "0,1\n", "nodes.parquet": "garbage"}, "is no readable Parquet file"),
        ({"edges.parquet": "garbage"}, "no edges in its first two columns that can be read"),
        ({"edges.parquet": {"a": [0, 1]}}, "no edges in its first two columns that can be read"),
        ({"edges.parquet": {"a": [0, None], "b": [1, 2]}}, "holds fractions"),
        ({"edges.parquet": {"a": [0.0, 1.5], "b": [1, 2]}}, "holds fractions"),
        ({"edges.parquet": {"a": [datetime(2020, 1, 1)], "b": [1]}}, "no edges in its first two columns"),
        ({"raw/edge.csv.gz": "0\n", "raw/num-node-list.csv.gz": "2\n"}, "has 1 columns; edges are pairs"),
        ({"raw/edge.csv.gz": "0,1\n", "raw/num-node-list.csv.gz": ""}, "holds 0 numbers; it is the count of nodes"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(files: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    for name, content in files.items():
        file = tmp_path / "graph" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            pyarrow.parquet.write_table(pyarrow.table(content), file)
        else:
            file.write_bytes(gzip.compress(content.encode()) if file.suffix == ".gz" else content.encode())
    (tmp_path / "graph").mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=sentence):
        import_from(tmp_path, tmp_path / "graph")


def test_what_is_no_graph_is_told_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    for name, sentence in (("notes.txt", "is no graph that can be read"), ("gone", "does not exist")):
        with pytest.raises(SourceError, match=rf"{sentence}: give an \.npz"):
            open_graph_source(str(tmp_path / name))
