"""Runs, encoders and galleries of an older version: today's code opens, serves, rebuilds, resumes and exports them."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, NoReturn

import httpx
import numpy as np
import pytest

from eigenlens.command import main
from eigenlens.model.config import parse_config
from eigenlens.service.gallery.layout import Gallery
from tests.support.service import JOB_EVERY_S, admin_headers, serving, settings_of, wait_for

DATA = Path(__file__).parents[1] / "data" / "old_artifacts"
EXPECTED = json.loads((DATA / "expected.json").read_text())

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(DATA / "old.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of everything, to be changed."""
    return Path(shutil.copytree(unpacked, tmp_path / "old"))


def search(client: httpx.Client, old: Path, entry: dict[str, Any]) -> list[tuple[str, float]]:
    image = (old / entry["query"]).read_bytes()
    response = client.post("/v1/search", params=entry["parameters"], files={"image": image})
    assert response.status_code == 200, response.text
    return [(result["id"], result["score"]) for result in response.json()["results"]]


def assert_searches(client: httpx.Client, old: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        results = search(client, old, entry)
        assert [id for id, _ in results] == [id for id, _ in entry["results"]], entry
        np.testing.assert_allclose(
            [score for _, score in results], [score for _, score in entry["results"]], atol=1e-4, err_msg=str(entry)
        )


def best_percentile(client: httpx.Client, old: Path) -> float | None:
    image = (old / "queries/kind-0/1000.png").read_bytes()
    percentile: float | None = client.post("/v1/search", files={"image": image}).json()["best_percentile"]
    return percentile


@pytest.mark.parametrize("name", ["gallery", "kinds"])
def test_a_gallery_is_served_as_it_was(old: Path, name: str) -> None:
    expected, gallery = EXPECTED[name], Gallery(old / name)
    with serving(settings_of(gallery)) as client:
        client.headers.update(admin_headers(gallery))
        lengths = client.get("/v1/lengths").json()
        assert {str(entry["length"]): entry["kind"] for entry in lengths["lengths"]} == expected["kinds"]
        assert {key: lengths[key] for key in ("count", "encoder", "eigenvalues")} == {
            key: expected[key] for key in ("count", "encoder", "eigenvalues")
        }
        jobs = [[job["id"], job["kind"], job["state"]] for job in client.get("/v1/admin/jobs").json()]
        assert jobs == expected["jobs"]
        generations = client.get("/v1/admin/generations").json()
        assert [[entry["number"], entry["count"]] for entry in generations] == expected["generations"]
        assert_searches(client, old, expected["searches"])
        assert best_percentile(client, old) is None, "it was not measured then"


@pytest.mark.parametrize("name", ["gallery", "kinds"])
def test_a_gallery_is_rebuilt_with_the_same_kinds_and_results(old: Path, name: str) -> None:
    expected, gallery = EXPECTED[name], Gallery(old / name)
    with serving(settings_of(gallery)) as client:
        client.headers.update(admin_headers(gallery))
        before = client.get("/v1/lengths").json()["generation"]
        kinds = {length: kind for length, kind in expected["kinds"].items() if name == "kinds"}
        job = client.post("/v1/admin/rebuild", json={"kinds": kinds}).json()["id"]

        def ended() -> dict[str, Any] | None:
            body: dict[str, Any] = client.get(f"/v1/admin/jobs/{job}").json()
            return body if body["finished"] else None

        finished = wait_for(ended, timeout_s=120, every_s=JOB_EVERY_S)
        assert (finished["state"], finished["generation"]) == ("done", before + 1), finished
        lengths = client.get("/v1/lengths").json()
        assert (lengths["generation"], lengths["count"]) == (before + 1, expected["count"])
        suitable = {"panorama": "va-file"}  # since this version, where no kind is asked for
        kinds = kinds or {length: suitable.get(kind, kind) for length, kind in expected["kinds"].items()}
        assert {str(entry["length"]): entry["kind"] for entry in lengths["lengths"]} == kinds
        full = max(map(int, expected["kinds"]))
        exact = [entry for entry in expected["searches"] if entry["parameters"]["length"] == full]
        assert len(exact) == 6
        assert_searches(client, old, exact)
        assert best_percentile(client, old) is not None


def test_a_gallery_goes_on_changing_with_its_old_key(old: Path) -> None:
    gallery = Gallery(old / "gallery")
    with serving(settings_of(gallery)) as client:
        client.headers["api-key"] = EXPECTED["key"]
        assert client.get("/v1/images/new/kind-1/0301.png").status_code == 404, "it was removed"
        added = (old / "queries/kind-0/1000.png").read_bytes()
        answer = client.post("/v1/images", files={"image": ("query.png", added)}, data={"metadata": '{"price": 90}'})
        assert answer.status_code == 200, answer.text
        assert client.delete("/v1/images/kind-3/0003.png").status_code == 204
        entry = {"query": "queries/kind-0/1000.png", "parameters": {"k": 3, "length": 16}}
        (first, score), *_ = search(client, old, entry)
        assert first == "query.png"
        assert score == pytest.approx(1, abs=1e-4)
        assert client.get("/v1/admin/jobs").status_code == 403, "its scopes are search and write"


class CachedSource:
    """Where the runs' images were: nothing is there any more but the pixels that the runs cached."""

    name = "/tmp/galleries/images.tar"

    def __len__(self) -> int:
        return 300

    def __iter__(self) -> NoReturn:
        raise AssertionError("the cached pixels are not used")


@pytest.fixture
def cached_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("train", "export"):
        monkeypatch.setattr(f"eigenlens.model.commands.{command}.open_source", lambda name: CachedSource())


@pytest.mark.usefixtures("cached_source")
def test_an_interrupted_run_is_resumed_from_its_checkpoint(old: Path) -> None:
    metrics = old / "interrupted-run" / "metrics.jsonl"
    before = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [record["step"] for record in before] == [10, 20]
    assert main(["train", "--out", str(old / "interrupted-run"), "--resume", "--device", "cpu"]) == 0
    after = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [record["step"] for record in after] == [10, 20, 30, 40, 50, 60]
    # Step 20 is taken again from the checkpoint of step 19: the same images, views and weights give the same loss.
    assert [record["loss"] for record in after[:2]] == pytest.approx([record["loss"] for record in before], rel=1e-3)


@pytest.mark.usefixtures("cached_source")
def test_a_finished_run_is_exported_to_the_same_encoder(old: Path) -> None:
    assert main(["export", str(old / "run"), "--out", str(old / "again")]) == 0
    manifests = [json.loads((old / name / "manifest.json").read_text()) for name in ("encoder", "again")]
    first, again = [manifest["properties"] for manifest in manifests]
    # Settings that came later are read with their defaults, as the old run was.
    config = parse_config(first["training"])
    first["training"] = config.model_copy(update={"spectrum": config.closed_form}).model_dump(mode="json")
    assert {key: value for key, value in again.items() if key != "eigenvalues"} == {
        key: value for key, value in first.items() if key != "eigenvalues"
    }
    np.testing.assert_allclose(again["eigenvalues"], first["eigenvalues"], atol=1e-3)
