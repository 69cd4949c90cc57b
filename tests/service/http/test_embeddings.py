"""OpenAI's embeddings interface, by hand and by OpenAI's own client library."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.support.service import (
    CODE_LENGTH,
    LENGTHS,
    client_fixture,
    code_of,
    gallery_fixture,
    pixels_of,
    png,
)

if TYPE_CHECKING:
    import openai

gallery = gallery_fixture(count=5)
client = client_fixture(max_image_bytes=20_000)


@pytest.fixture(scope="module")
def library(client: httpx.Client) -> Iterator[openai.OpenAI]:
    import openai  # it takes seconds

    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def uri(seed: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels_of(seed))).decode()}"


def expected(seed: int, dimensions: int = CODE_LENGTH) -> np.ndarray[Any, Any]:
    """Sliced, then normalised."""
    prefix = code_of(pixels_of(seed))[:dimensions]
    return prefix / np.linalg.norm(prefix)


@pytest.mark.parametrize("dimensions", [None, 1, 3, 4, CODE_LENGTH])
def test_a_prefix_is_sliced_then_normalised(client: httpx.Client, dimensions: int | None) -> None:
    body = {"input": [uri(1), uri(2)], "model": "eigenlens", "modality": "image", "user": "me"}
    answer = client.post("/v1/embeddings", json=body | ({} if dimensions is None else {"dimensions": dimensions}))
    assert answer.status_code == 200, answer.text
    for place, seed in enumerate((1, 2)):
        found = answer.json()["data"][place]
        assert (found["object"], found["index"]) == ("embedding", place)
        np.testing.assert_allclose(found["embedding"], expected(seed, dimensions or CODE_LENGTH), atol=1e-5)


def test_base64_is_the_same_numbers_as_little_endian_float32(client: httpx.Client) -> None:
    for path in ("/v1/embeddings", "/embeddings"):
        body = {"input": uri(1), "encoding_format": "base64", "dimensions": 5}
        found = client.post(path, json=body).json()["data"][0]["embedding"]
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(found), "<f4"), expected(1, 5), atol=1e-5)


def test_openais_own_client_gets_embeddings_models_and_errors(library: openai.OpenAI) -> None:
    import openai

    answer = library.embeddings.create(model="eigenlens", input=[uri(1), uri(2)], dimensions=4)
    for found, seed in zip(answer.data, (1, 2), strict=True):
        np.testing.assert_allclose(found.embedding, expected(seed, 4), atol=1e-5)
    plain = library.embeddings.create(model="eigenlens", input=uri(3), encoding_format="float")
    np.testing.assert_allclose(plain.data[0].embedding, expected(3), atol=1e-5)
    model = next(iter(library.models.list()))
    assert model.id == "eigenlens"
    assert model.model_extra is not None
    assert model.model_extra["is_matryoshka"] is True
    assert tuple(model.model_extra["matryoshka_dimensions"]) == LENGTHS
    encoder = model.model_extra["encoder"]
    assert library.models.retrieve(encoder).id == encoder
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        library.embeddings.create(model="gpt", input=uri(1))
    with pytest.raises(openai.BadRequestError) as refused:
        library.embeddings.create(model="eigenlens", input=uri(1), dimensions=13)
    assert (refused.value.param, refused.value.code) == ("dimensions", "input")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": "some text"}, 400, "input"),
        ({"input": [uri(1), "data:image/png;base64,AAAA"]}, 400, "input"),
        ({"input": "data:image/png;base64,AAA"}, 400, "input"),
        ({"input": [1, 2, 3]}, 400, "input"),
        ({"input": uri(1), "dimensions": 0}, 400, "dimensions"),
        ({"input": uri(1), "encoding_format": "hex"}, 400, "encoding_format"),
        ({"input": uri(1), "modality": "text"}, 400, "modality"),
        ({"input": uri(1), "inptu": 1}, 400, "inptu"),
        ({"input": "data:image/png;base64," + "A" * 40_000}, 413, None),
        ({"input": uri(1), "model": "gpt"}, 404, None),
    ],
    ids=range(12),
)
def test_errors_are_in_openais_shape(client: httpx.Client, body: dict[str, Any], status: int, param: str) -> None:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert str(error["param"]).startswith(str(param))
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/embeddings"), ("DELETE", "/embeddings"), ("GET", "/v1/models/none")]
)
def test_other_refusals_on_these_routes_are_in_openais_shape_too(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).json()["error"]["type"].endswith("_error")
    broken = client.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
