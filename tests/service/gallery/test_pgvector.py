"""A gallery whose codes are in PostgreSQL: built, rebuilt, backed up, taken back, and refused where there is none."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from eigenlens.command import main
from eigenlens.index.pgvector_engine.statements import TABLES
from eigenlens.service.gallery.layout import Gallery
from tests.support.postgres import Server
from tests.support.service import admin_headers, build_gallery, code_of, pixels_of, serving, settings_of, wait_for

COUNT = 12


def nearest(client: httpx.Client, seed: int) -> list[str]:
    answer = client.post("/v1/search", json={"code": code_of(pixels_of(seed)).tolist(), "k": COUNT})
    return [result["id"] for result in answer.raise_for_status().json()["results"]]


def tables(gallery: Gallery) -> list[str]:
    vectors = gallery.store.vectors()
    assert vectors is not None
    return sorted(name for (name,) in vectors.query(TABLES))


def test_a_gallery_goes_to_postgres_with_its_codes_and_back(
    tmp_path: Path, postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, address = build_gallery(tmp_path, count=COUNT), postgres.new_schema()
    with serving(settings_of(gallery)) as client:
        expected = nearest(client, 3)
    gallery.store.close()
    build, at = ["build", "--gallery", str(gallery.root)], ["--store", address]
    assert main([*build, "--backend", "pgvector"]) == 1
    assert "are in SQLite: `eigenlens migrate --gallery" in capsys.readouterr().err
    assert main(["migrate", "--gallery", str(gallery.root), *at]) == 0
    assert main([*build, *at, "--backend", "pgvector", "--kinds", "4=ivf-sq8"]) == 1
    assert "pgvector has no index of kind 'ivf-sq8'" in capsys.readouterr().err
    assert main([*build, *at, "--backend", "pgvector"]) == 0
    assert "12 images; in PostgreSQL: codes 0.0 MB" in capsys.readouterr().err
    moved = Gallery(gallery.root, store=address)
    assert tables(moved) == ["vectors_000002"]
    with serving(settings_of(moved, store=address, deadline_s=30)) as client:
        client.headers.update(admin_headers(moved))
        assert nearest(client, 3) == expected
        client.delete(f"/v1/images/{expected[0]}").raise_for_status()
        refused = client.post("/v1/admin/rebuild", json={"kinds": {"4": "ivf"}})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/index-kind")
        job = client.post("/v1/admin/rebuild").raise_for_status().json()["id"]
        wait_for(lambda: client.get(f"/v1/admin/jobs/{job}").json()["state"] == "done", timeout_s=100)
        wait_for(lambda: client.get("/readyz").json()["generation"] == 3)
        assert nearest(client, 3) == expected[1:]
        assert client.get("/v1/lengths").json()["lengths"][-1]["kind"] == "pg-scan"
        backup = client.post("/v1/admin/backups", json={}).raise_for_status().json()["name"]
    assert tables(moved) == ["vectors_000002", "vectors_000003"]
    capsys.readouterr()
    assert main(["doctor", "--gallery", str(gallery.root), *at]) == 0
    assert "backend pgvector" in capsys.readouterr().out
    archive, restored = moved.root / "backups" / backup, tmp_path / "restored"
    assert main(["restore", str(archive), "--gallery", str(restored)]) == 0
    assert main(["serve", "--gallery", str(restored), "--port", "0"]) == 1
    assert "is not in the gallery's store: `eigenlens build`" in capsys.readouterr().err
    assert main(["build", "--gallery", str(restored)]) == 1
    assert main(["build", "--gallery", str(restored), "--backend", "faiss"]) == 0
    with serving(settings_of(Gallery(restored))) as client:
        assert nearest(client, 3) == expected[1:]
    moved.remove_generation(2)
    assert tables(moved) == ["vectors_000003"]
    moved.store.close()
