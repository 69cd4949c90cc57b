"""A short form of `python -m tests.mutations`: no image breaks the service or keeps it busy."""

from __future__ import annotations

import httpx
import pytest

from tests.mutations import WAYS, check, hopeless_images, mutated_images, send, whole_images
from tests.support.service import client_fixture, gallery_fixture

LIMIT_S = 8.0  # on cores that others use too; the long form has 2


gallery = gallery_fixture(count=5)
client = client_fixture(admin=True, deadline_s=60)


@pytest.mark.parametrize("name", list(whole_images()))
def test_an_odd_image_is_taken_like_any_other(client: httpx.Client, name: str) -> None:
    image = whole_images()[name]
    ways = WAYS if len(image) < 200_000 else ("body", "put")
    assert {way: send(client, image, way) for way in ways} == {way: pytest.approx(200, abs=1) for way in ways}


@pytest.mark.parametrize("name", list(hopeless_images()))
def test_a_hopeless_image_is_refused(client: httpx.Client, name: str) -> None:
    image = hopeless_images()[name]
    statuses = {send(client, image, way) for way in WAYS}
    assert statuses <= {400, 413, 415, 422}, statuses


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_mutated_image_breaks_the_service(client: httpx.Client) -> None:
    found = check(client, mutated_images(600, seed=7), limit_s=LIMIT_S)
    assert not found.wrong
    assert not found.slow
    assert found.statuses[200] > 50, "some survive"
    assert found.statuses[422] > 50
    assert client.get("/readyz").status_code == 200
