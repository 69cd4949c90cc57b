"""A gallery of nodes: built, served and searched over a real socket; new nodes by features and neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens.command import main
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.node_features import UnitFeatures, project
from eigenlens.model.graphs.smoothing import Smoother
from eigenlens.model.runtime.feature_encoder import FeatureEncoder
from eigenlens.model.runtime.node_states import NodeState, smooth_new_node
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.settings import load_settings
from tests.support.graphs import block_graph, imported
from tests.support.service import admin_headers, build_gallery, serving


def write_graph(folder: Path) -> Path:
    """A folder of a graph whose nodes have ids and metadata."""
    arrays = block_graph()
    folder.mkdir()
    a, b = arrays["edge_index"]
    lines = [f"page/{x},page/{y}\n" for x, y in zip(a, b, strict=True)]
    (folder / "edges.csv").write_text("from,to\n" + "".join(lines))
    names = ",".join(f"f{column}" for column in range(20))
    rows = [
        f"page/{row},class {arrays['labels'][row]},{row % 7},{','.join(map(str, arrays['x'][row]))}\n"
        for row in range(120)
    ]
    (folder / "nodes.csv").write_text(f"id,label,likes,{names}\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph, its encoder, and a gallery of its nodes."""
    root = tmp_path_factory.mktemp("nodes")
    graph = str(write_graph(root / "graph"))
    assert main(["fit", "--graph", graph, "--out", str(root / "encoder"), "--code-length", "16"]) == 0
    arguments = ["build", "--encoder", str(root / "encoder"), "--graph", graph, "--gallery", str(root / "gallery")]
    assert main([*arguments, "--lengths", "4,16"]) == 0
    return root


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[httpx.Client]:
    with serving(load_settings(gallery=built / "gallery")) as client:
        client.headers.update(admin_headers(Gallery(built / "gallery")))
        yield client


@pytest.fixture(scope="module")
def graph(built: Path) -> Graph:
    (path,) = (built / "encoder.work").glob("graph-*")
    return Graph(path)


def search(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/search", json={"k": 5, "include": ["metadata", "code"], **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def features_of(graph: Graph, row: int) -> list[float]:
    features = graph.features(row, row + 1)
    assert isinstance(features, np.ndarray)
    numbers: list[float] = features[0].tolist()
    return numbers


def test_the_gallery_has_the_codes_of_the_fit(built: Path, client: httpx.Client, graph: Graph) -> None:
    encoder = FeatureEncoder(built / "encoder")
    projections = encoder.project(np.array([features_of(graph, row) for row in range(graph.count)]))
    smoothed = encoder.finish(Smoother(graph).smooth(projections, 2))
    for row in (0, 50, 119):
        code = search(client, id=f"page/{row}")["code"]
        unit = smoothed[row] / np.linalg.norm(smoothed[row])
        np.testing.assert_allclose(code / np.linalg.norm(code), unit, atol=2e-3)  # codes are stored as float16
    lengths = client.get("/v1/lengths").json()
    assert (lengths["input"], lengths["features"], lengths["count"]) == ("features", 20, 120)


def test_nodes_are_searched_by_id_and_filtered(client: httpx.Client) -> None:
    answer = search(client, id="page/3", filter={"likes": {"$gte": 3}})
    assert len(answer["results"]) == 5
    assert all(result["metadata"]["likes"] >= 3 for result in answer["results"])
    assert sum(result["metadata"]["label"] == "class 0" for result in answer["results"]) >= 4


def test_a_node_that_was_not_there_is_searched_by_its_features_and_neighbours(
    client: httpx.Client, graph: Graph
) -> None:
    # A search with all that is known of a node finds it, though its neighbours then have one more.
    neighbours = [f"page/{row}" for row in graph.neighbours(7)]
    answer = search(client, features=features_of(graph, 7), neighbours=neighbours)
    assert "page/7" in [result["id"] for result in answer["results"] if result["score"] > 0.97]
    sparse = {str(column): x for column, x in enumerate(features_of(graph, 7))}
    assert search(client, features=sparse, neighbours=neighbours)["code"] == answer["code"]
    for body in ({"features": features_of(graph, 7)}, {"neighbours": neighbours}):
        labels = [result["metadata"]["label"] for result in search(client, **body)["results"]]
        assert labels.count("class 1") >= 4


def test_a_node_that_is_added_is_found_and_is_a_neighbour_at_once(client: httpx.Client, graph: Graph) -> None:
    features = features_of(graph, 10)
    nodes = [
        {"id": "new/1", "features": features, "neighbours": ["page/10", "page/13"], "metadata": {"title": "A <page>"}},
        {"id": "new/2", "neighbours": ["new/1"]},
        {"id": "bad/1", "features": features[:3]},
        {"id": "bad/2", "neighbours": ["nowhere"]},
    ]
    answer = client.post("/v1/images", json={"images": nodes}).json()
    assert [(image["id"], image["status"]) for image in answer["images"]] == [("new/1", "added"), ("new/2", "added")]
    reasons = {failed["id"]: failed["reason"] for failed in answer["failed"]}
    assert reasons == {"bad/1": "a node has 20 features, not 3", "bad/2": "the gallery has no image 'nowhere'"}
    again = search(client, features=features, neighbours=["page/10", "page/13"])
    assert again["results"][0]["id"] == "new/1"
    assert again["results"][0]["score"] > 0.999
    picture = client.get("/v1/images/new/1/thumbnail")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "A &lt;page&gt;" in picture.text
    assert client.delete("/v1/images/new/1").status_code == 204
    assert "new/1" not in [result["id"] for result in search(client, id="page/10", k=100)["results"]]


def test_codes_of_smoothed_features_divided_by_their_length_are_served_alike(
    built: Path, tmp_path: Path, graph: Graph
) -> None:
    source, encoder, gallery = (str(path) for path in (built / "graph", tmp_path / "encoder", tmp_path / "gallery"))
    assert main(["fit", "--graph", source, "--out", encoder, "--preset", "smooth-unit", "--code-length", "16"]) == 0
    assert main(["build", "--encoder", encoder, "--graph", source, "--gallery", gallery, "--lengths", "4,16"]) == 0
    with serving(load_settings(gallery=Path(gallery))) as client:
        client.headers.update(admin_headers(Gallery(Path(gallery))))
        test_the_gallery_has_the_codes_of_the_fit(tmp_path, client, graph)
        test_a_node_that_is_added_is_found_and_is_a_neighbour_at_once(client, graph)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"image": "aGk="}, "this gallery holds nodes"),
        ({"features": [1.0]}, "a node has 20 features, not 1"),
        ({"features": {"20": 1.0}}, "a node has features 0 to 19"),
        ({"features": {"x": 1.0}}, "the names of features are their columns"),
        ({"features": [1e300] * 20}, "features are finite numbers"),
        ({"neighbours": ["nowhere"]}, "no image 'nowhere'"),
        ({"features": [1.0] * 20, "id": "page/1"}, "exactly one"),
        ({}, "exactly one"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(body: dict[str, Any], reason: str, client: httpx.Client) -> None:
    response = client.post("/v1/search", json=body)
    assert response.status_code == 422
    assert reason in response.json()["detail"]


@pytest.mark.parametrize(
    ("preset", "features", "meaningless", "reason"),
    [
        ("features-only", 20, {"neighbours": ["page/1"]}, "codes are of the features alone here"),
        ("structure-only", 0, {"features": {"0": 1.0}, "neighbours": ["page/1"]}, "codes are of the edges alone here"),
    ],
)
def test_what_makes_no_difference_to_a_code_is_no_query(
    preset: str, features: int, meaningless: dict[str, Any], reason: str, built: Path, tmp_path: Path
) -> None:
    graph, encoder, gallery = (str(path) for path in (built / "graph", tmp_path / "encoder", tmp_path / "gallery"))
    assert main(["fit", "--graph", graph, "--out", encoder, "--preset", preset, "--code-length", "8"]) == 0
    assert main(["build", "--encoder", encoder, "--graph", graph, "--gallery", gallery, "--lengths", "8"]) == 0
    with serving(load_settings(gallery=Path(gallery))) as client:
        client.headers.update(admin_headers(Gallery(Path(gallery))))
        response = client.post("/v1/search", json=meaningless)
        assert (response.status_code, reason in response.text) == (422, True)
        added = client.post("/v1/images", json={"images": [{"id": "new", **meaningless}]}).json()
        assert [reason in failed["reason"] for failed in added["failed"]] == [True]
        assert client.get("/v1/lengths").json()["features"] == features


def test_a_gallery_of_images_has_no_features(tmp_path: Path) -> None:
    with serving(load_settings(gallery=build_gallery(tmp_path).root)) as client:
        response = client.post("/v1/search", json={"features": [1.0]})
        assert (response.status_code, "holds images" in response.text) == (422, True)
        assert client.get("/v1/lengths").json()["input"] == "image"


def test_a_second_build_adds_what_changed_alone(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["build", "--gallery", str(built / "gallery")]
    assert main([*arguments, "--graph", str(built / "graph")]) == 0
    assert "0 added, 0 replaced, 120 unchanged" in capsys.readouterr().out
    assert main([*arguments, "--images", str(built)]) == 1
    assert main([*arguments, "--encoder", str(built / "encoder"), "--lengths", "8,16"]) == 0


def test_the_command_searches_by_features(built: Path, client: httpx.Client, graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(json.dumps(features_of(graph, 7)))
    arguments = ["search", "--features", str(tmp_path / "features.json"), "--neighbours", "page/4, page/1"]
    assert main([*arguments, "--url", str(client.base_url), "--json"]) == 0
    assert main(["search", "--features", str(tmp_path / "gone.json"), "--url", str(client.base_url)]) == 1


def appended(arrays: dict[str, NDArray[Any]], neighbours: list[int]) -> dict[str, NDArray[Any]]:
    count = len(arrays["x"])
    new = np.array([[count] * len(neighbours), neighbours], dtype=np.int64)
    return {
        "edge_index": np.concatenate([arrays["edge_index"], new], axis=1),
        "x": np.concatenate([arrays["x"], arrays["x"][:1] + 1]),
        "labels": np.append(arrays["labels"], 0),
    }


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_a_new_node_is_smoothed_as_if_it_had_always_been_there(hops: int, degree: int, tmp_path: Path) -> None:
    arrays = block_graph(3, count=200)
    before = imported(tmp_path / "before", arrays)
    chosen: list[int] = []  # no two of them neighbours of each other, nor of one third node
    for node in range(before.count):
        far = {node, *before.neighbours(node).tolist()}
        if len(chosen) < degree and not any(far & {other, *before.neighbours(other).tolist()} for other in chosen):
            chosen.append(node)
    assert len(chosen) == degree
    after = imported(tmp_path / "after", appended(arrays, chosen))
    weights = np.random.default_rng(0).normal(size=(20, 6))
    projected = project(UnitFeatures(after, dtype=np.float64), weights)
    exact = Smoother(after, dtype=np.float64).smooth(projected.copy(), hops)[-1]
    levels = [Smoother(before, dtype=np.float64).smooth(projected[:-1].copy(), level) for level in range(hops)]
    states = (
        [
            NodeState(int(before.degrees[node]), np.stack([level[node] for level in levels]).astype(np.float32))
            for node in chosen
        ]
        if hops
        else [NodeState(0, np.zeros((0, 0), np.float32)) for _ in chosen]
    )
    smoothed, state = smooth_new_node(projected[-1], states, hops=hops)
    # What a third hop brings back from farther away is left out.
    np.testing.assert_allclose(smoothed, exact, atol=1e-6 if hops < 3 else 0.05)
    copy = NodeState.from_bytes(state.to_bytes(), hops=hops)
    assert copy.degree == degree
    np.testing.assert_array_equal(copy.levels, state.levels)
