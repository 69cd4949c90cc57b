"""A short form of `python -m tests.contract`: what the OpenAPI document says is what the service does."""

from __future__ import annotations

import pytest

from tests.contract import check
from tests.support.service import admin_headers, build_gallery, serving, settings_of


@pytest.mark.timeout(180)
def test_the_service_does_what_its_document_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    gallery = build_gallery(tmp_path_factory.mktemp("contract"), count=20)
    with serving(settings_of(gallery, root_path="/photos")) as client:
        address = f"{str(client.base_url).rstrip('/')}/photos"
        report = check(address, admin_headers(gallery), examples=2, more=["--phases=examples,coverage"])
        assert report.status == 0, report.text[-6000:]
        assert report.cases > 300
        assert min(report.requests[sort] for sort in ("HEAD", "body in gzip", "answer in gzip")) > 0, report.requests
        assert client.get("/readyz").status_code == 200
