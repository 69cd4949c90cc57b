"""A client that openapi-python-client generates from the OpenAPI document, used against the running service."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.service.gallery.layout import Gallery
from tests.service.http.test_embeddings import uri
from tests.support.service import (
    admin_headers,
    client_fixture,
    code_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
)

BIN = Path(sys.executable).parent


gallery = gallery_fixture(count=10)
service = client_fixture(name="service")


@pytest.fixture(scope="module")
def generated(service: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Imports a module of the generated package by its name."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(service.get("/openapi.json").json()))
    command = [str(BIN / "openapi-python-client"), "generate", "--path", "openapi.json", "--meta", "none"]
    done = subprocess.run(
        [*command, "--output-path", "eigenlens_generated"],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Endpoint will be skipped" not in done.stdout, done.stdout
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"eigenlens_generated.{name}")
    sys.path.remove(str(folder))


def test_a_generated_client_works(generated: Any, service: httpx.Client, gallery: Gallery) -> None:
    models, types = generated("models"), generated("types")
    url = str(service.base_url)
    token = admin_headers(gallery)["Authorization"].removeprefix("Bearer ")
    with generated("client").AuthenticatedClient(base_url=url, token=token) as admin:
        search = generated("api.search.search").sync
        found = search(client=admin, body=models.SearchBody(id=image_id(3), k=4, length=4))
        assert len(found.results) == 4
        assert found.plan.length == 4
        picture = types.File(io.BytesIO(png(pixels_of(3))), "x.png", "image/png")
        uploaded = search(client=admin, body=models.SearchFilesBody(image=picture, k=2, length=12))
        assert uploaded.results[0].id == image_id(3)
        assert uploaded.results[0].metadata.additional_properties == {"label": "odd"}
        refused = search(client=admin, body=models.SearchBody(id="nowhere"))
        assert (refused.status, refused.type_) == (404, "/problems/image-not-found")

        item = {"id": "new/a.png", "image": uri(500).partition(",")[2], "metadata": {"price": 3}}
        body = models.AddBody.from_dict({"images": [item]})
        assert generated("api.images.add_images").sync(client=admin, body=body).added == 1
        image = generated("api.images.get_image").sync("new/a.png", client=admin)
        assert image.metadata.additional_properties == {"price": 3}
        content = generated("api.images.image_content").sync_detailed("new/a.png", client=admin)
        assert content.content == png(pixels_of(500))
        assert generated("api.images.delete_image").sync_detailed("new/a.png", client=admin).status_code == 204

        asked = models.EmbeddingsBody(input_=[uri(1)], dimensions=3)
        embedding = generated("api.embeddings.embeddings").sync(client=admin, body=asked).data[0].embedding
        expected = code_of(pixels_of(1))[:3]
        np.testing.assert_allclose(embedding, expected / np.linalg.norm(expected), atol=1e-5)
        assert generated("api.search.lengths").sync(client=admin).code_length == 12
        assert generated("api.admin.stats").sync(client=admin).images == 10
        job = generated("api.admin.rebuild").sync(client=admin, body=models.RebuildBody(lengths=[2, 6]))
        assert job.kind == "rebuild"
        assert generated("api.admin.get_job").sync(job.id, client=admin).id == job.id
