"""An odd folder is taken in by build, import, add and the page's way alike: the same images, and the same report."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from eigenlens.command import main
from eigenlens.image_files import UNREADABLE_FILE, UNREADABLE_FOLDER, list_images
from eigenlens.image_ids import MAX_ID_LENGTH
from eigenlens.service.gallery.layout import Gallery
from tests.support.odd_folder import FAILED, IDS, IMAGES, SENTENCE, SKIPPED, TAKEN, picture, write_odd_folder
from tests.support.service import admin_headers, build_gallery, pixels_of, png, serving, settings_of, wait_for

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_odd_folder(tmp_path_factory.mktemp("odd") / "photos")


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return build_gallery(tmp_path, count=COUNT)


@pytest.fixture
def client(gallery: Gallery, folder: Path) -> Iterator[httpx.Client]:
    with serving(settings_of(gallery, import_root=folder.parent)) as running:
        running.headers.update(admin_headers(gallery))
        yield running


def contents(gallery: Gallery, *, prefix: str = "") -> dict[str, bytes]:
    store = gallery.store
    records = [r for r in store.page(1000) if r.id.startswith(prefix) and not r.id.startswith(("even/", "odd/"))]
    return {record.id.removeprefix(prefix): store.content(record.key) for record in records}


def assert_taken(found: dict[str, bytes]) -> None:
    expected = {IDS.get(name, name.decode(errors="replace")): content for name, content in files().items()}
    long = next(name for name in expected if len(name) > MAX_ID_LENGTH)
    shortened = next(name for name in found if name.startswith("d" * 200))
    assert len(shortened) <= MAX_ID_LENGTH
    assert shortened.endswith(".png")
    expected[shortened] = expected.pop(long)
    expected["link.png"] = png(pixels_of(5900))
    assert found == expected


def files() -> dict[bytes, bytes]:
    return {name: picture(number, format) for number, (name, format) in enumerate(IMAGES.items())}


def build(gallery: Gallery, folder: Path, *more: str) -> int:
    gallery.store.close()
    return main(["build", "--gallery", str(gallery.root), "--images", str(folder), "--json", *more])


def test_a_build_takes_all_in_and_reports_the_rest(
    gallery: Gallery, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(gallery, folder) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["skipped"], [entry["id"].rpartition("/")[2] for entry in report["failed"]]) == (
        TAKEN,
        SKIPPED,
        FAILED,
    )
    assert {entry["path"]: entry["kind"] for entry in report["skipped_files"]}["linked"] == "linked folder"


def test_an_import_takes_the_same_in(gallery: Gallery, client: httpx.Client, folder: Path) -> None:
    address = client.post("/v1/admin/import", json={"folder": folder.name}).headers["location"]

    def ended() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(address).json()
        return body if body["finished"] else None

    job = wait_for(ended)
    assert job["state"] == "done", job
    result = job["result"]
    assert (result["added"], result["skipped"], result["failed"]) == (TAKEN, SKIPPED, len(FAILED))
    assert result["report"].endswith(f"2 failed, {SENTENCE}")


def test_an_upload_takes_the_same_in_and_every_image_can_be_opened_and_removed(
    gallery: Gallery, client: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["add", str(folder), "--url", str(client.base_url), "--key-file", str(gallery.root / "admin.key")]
    assert main(add) == 6, "two failed"
    assert capsys.readouterr().out == f"{TAKEN} added, 0 replaced, 0 unchanged, 0 gone, 2 failed, {SENTENCE}\n"
    assert_taken(contents(gallery))
    assert main([*add, "--continue"]) == 6
    assert capsys.readouterr().out.startswith(f"0 added, 0 replaced, {TAKEN} unchanged")
    seen = page_through(client)
    assert len(seen) == TAKEN + COUNT
    for id in seen:
        address = f"/v1/images/{quote(id)}"
        for part in ("", "/content", "/thumbnail"):
            assert client.get(address + part).status_code == 200, (id, part)
        assert client.delete(address).status_code == 204, id


def page_through(client: httpx.Client) -> list[str]:
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/images", params={"limit": 7, **after}).json()
        seen += [image["id"] for image in page["images"]]
        if page["next"] is None:
            return seen
        after = {"after": page["next"]}


def test_names_are_found_in_either_spelling_of_unicode(client: httpx.Client) -> None:
    composed, decomposed = "\u00fcber/\u00e9.png", "u\u0308ber/e\u0301.png"
    headers = {"content-type": "image/png"}
    for id, seed, status in ((decomposed, 1, 201), (composed, 2, 200)):
        answer = client.put(f"/v1/images/{quote(id)}", content=png(pixels_of(seed)), headers=headers)
        assert (answer.status_code, answer.json()["id"]) == (status, composed)
    for id in (composed, decomposed):
        assert client.get(f"/v1/images/{quote(id)}/content").content == png(pixels_of(2))
        assert client.post("/v1/search", json={"id": id, "k": 1}).status_code == 200
    assert client.delete(f"/v1/images/{quote(decomposed)}").status_code == 204


@pytest.mark.parametrize("id", ["content", "thumbnail", "a/content", "a\nb", "x" * 1025])
def test_what_no_address_can_name_is_no_id(client: httpx.Client, id: str) -> None:
    answer = client.post("/v1/images", json={"images": [{"id": id, "image": ""}]})
    assert answer.status_code == 422
    assert "an id" in answer.text


def test_linked_folders_are_followed_on_request_and_never_in_a_circle(folder: Path) -> None:
    followed = list_images(folder, follow_links=True)
    assert [file.relative for file in followed.files if "linked" in file.relative] == ["linked/linked.png"]
    assert [entry.path for entry in followed.skipped if entry.kind == "linked folder"] == ["loop"]


def test_folders_without_permission_are_counted() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else for a moment")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, mode in (("closed", 0o000), ("listed", 0o444)):
            (root / folder).mkdir()
            (root / folder / "a.png").write_bytes(png(pixels_of(1)))
            (root / folder).chmod(mode)
        (root / "open.png").write_bytes(png(pixels_of(2)))
        (root / "locked.png").write_bytes(png(pixels_of(3)))
        (root / "locked.png").chmod(0o000)
        root.chmod(0o755)
        os.seteuid(65534)
        try:
            listing = list_images(root)
        finally:
            os.seteuid(0)
    assert [file.relative for file in listing.files] == ["open.png"]
    assert [(entry.path, entry.kind) for entry in listing.skipped] == [
        ("closed", UNREADABLE_FOLDER),
        ("listed/a.png", UNREADABLE_FILE),
        ("locked.png", UNREADABLE_FILE),
    ]


def test_a_folder_without_images_is_no_success(
    client: httpx.Client, gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.heic").write_bytes(b"\x00\x00\x00\x14ftypqt  " + bytes(50))
    add = ["add", str(tmp_path / "films"), "--url", str(client.base_url)]
    assert main([*add, "--key-file", str(gallery.root / "admin.key")]) == 1
    assert capsys.readouterr().out == "0 added, 0 replaced, 0 unchanged, 0 gone, 0 failed, skipped: 1 video\n"
