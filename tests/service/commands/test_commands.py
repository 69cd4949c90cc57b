"""The commands that ask a running service: what they print, as a table and as JSON, and their exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from eigenlens.command import main
from eigenlens.service.commands.connection import print_table
from eigenlens.service.commands.options import plain
from eigenlens.service.gallery.layout import Gallery
from tests.support import oracles
from tests.support.service import (
    CODE_LENGTH,
    build_gallery,
    client_fixture,
    code_of,
    gallery_fixture,
    image_id,
    pixels_of,
    png,
    serving,
    settings_of,
)

COUNT = 20
Run = Callable[..., tuple[int, str, str]]


gallery = gallery_fixture(count=COUNT)
service = client_fixture(name="service")


@pytest.fixture
def run(service: httpx.Client, gallery: Gallery, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command with the service's address and key; its exit status and what it printed."""

    def call(command: str, *arguments: str, key: bool = True) -> tuple[int, str, str]:
        capsys.readouterr()
        keyed = ["--key-file", str(gallery.root / "admin.key")] if key else []
        status = main([command, "--url", str(service.base_url), *keyed, *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def as_json(run: Run, command: str, *arguments: str, **more: Any) -> Any:
    status, out, err = run(command, *arguments, "--json", **more)
    assert status == 0, err
    return json.loads(out)


def test_images_are_added_searched_and_removed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in (500, 501):
        (folder / f"{seed}.png").write_bytes(png(pixels_of(seed)))
    status, out, _ = run("add", str(folder), "--prefix", "new/", "--metadata", '{"price": 7}')
    assert (status, out) == (0, "2 added, 0 replaced, 0 unchanged, 0 gone, 0 failed\n")
    (folder / "bad.png").write_bytes(b"no image")
    status, out, err = run("add", str(folder), "--prefix", "new/", "--metadata", '{"price": 7}')
    assert (status, out) == (6, "0 added, 0 replaced, 2 unchanged, 0 gone, 1 failed\n")
    assert "new/bad.png: the 8 bytes are no image" in err
    status, out, _ = run("search", str(folder / "500.png"), "--k", "3", key=False)
    assert status == 0
    assert out.splitlines()[1].split() == ["1.0000", "new/500.png"]
    assert "length 12 (flat), expected recall" in out.splitlines()[-1]
    found = as_json(run, "search", "--id", "new/500.png", "--filter", '{"price": 7}', "--length", "4", key=False)
    assert [result["id"] for result in found["results"]] == ["new/501.png"]
    page = as_json(run, "search", "--id", "new/500.png", "--k", "2", "--offset", "1", "--min-score", "-1", key=False)
    assert len(page["results"]) == 2
    grouped = run("search", str(folder / "500.png"), "--group-duplicates", "0.01", key=False)[1]
    assert "nearly the same" in grouped
    status, out, err = run("rm", "new/500.png", "nowhere")
    assert (status, out) == (6, "1 removed\n")
    assert "nowhere" in err
    assert run("rm", "new/500.png")[0] == 3
    assert as_json(run, "rm", "new/500.png", "new/501.png", "--ignore-missing") == {
        "removed": ["new/501.png"],
        "missing": ["new/500.png"],
    }


def test_a_search_says_in_words_when_nothing_looks_like_the_query(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=60)
    codes = np.stack([code_of(pixels_of(seed)) for seed in range(60)])
    pixels = [pixels_of(seed) for seed in range(5000, 9000)]
    far = oracles.scatter_distance(np.stack([code_of(each) for each in pixels]), codes)
    path = tmp_path / "outlier.png"
    path.write_bytes(png(pixels[int(far.argmax())]))
    with serving(settings_of(gallery)) as service:
        asked = ["search", "--url", str(service.base_url), "--length", str(CODE_LENGTH)]
        assert main([*asked, str(path)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("Nothing here looks like this picture: its code lies farther out than those of 100 %")
        assert len(said) == 13
        assert main([*asked, str(path), "--min-similarity", "100"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
        assert main([*asked, "--id", image_id(1)]) == 0
        assert "Nothing here" not in capsys.readouterr().out
    gallery.store.close()


def test_generations_are_built_listed_activated_and_removed(run: Run, gallery: Gallery) -> None:
    status, out, err = run("rebuild", "--lengths", "3,6")
    assert status == 0, err
    number = max(gallery.numbers())
    assert out.endswith(f"done: generation {number}\n")
    assert "rebuild" in err
    job = as_json(run, "jobs")[0]
    assert job["generation"] == number
    assert run("jobs")[1].splitlines()[1].split()[:3] == [job["id"], "rebuild", "done"]
    assert run("jobs", job["id"])[1].startswith(f"rebuild {job['id']} done")
    assert run("jobs", job["id"], "--cancel")[0] == 1
    assert run("jobs", "none")[0] == 3
    assert run("generations", "--rm", str(number))[0] == 1
    rows = run("generations", "--activate", "1")[1].splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [[str(number), "20"], ["1", "served"]]
    assert [entry["number"] for entry in as_json(run, "generations", "--rm", str(number))] == [1]
    started = as_json(run, "rebuild", "--no-wait")
    assert as_json(run, "jobs", started["id"])["state"] == "done"
    as_json(run, "generations", "--activate", "1")


def test_figures_and_backups(run: Run, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_json(run, "stats")["images"] == COUNT
    assert ["images", "20"] in [row.split() for row in run("stats")[1].splitlines()]
    archive = tmp_path / "a.tar"
    assert run("backup", str(archive), "--files")[1] == f"{archive}: {archive.stat().st_size:,} bytes\n"
    assert run("backup", str(archive))[0] == 1, "a file is never overwritten"
    assert run("backup", str(tmp_path / "none" / "a.tar"))[0] == 1
    assert as_json(run, "backup", "b.tar", "--keep")["name"] == "b.tar"
    assert run("backup", str(archive), "--keep")[0] == 1
    assert run("backup", "--list")[1].splitlines()[1].startswith("b.tar")
    assert run("rm", image_id(3))[0] == 0
    assert run("restore", "b.tar", "--served")[1].endswith("done: added 1, removed 0, unchanged 19\n")
    assert run("restore", "none.tar", "--served")[0] == 3
    again = tmp_path / "again"
    status, out, _ = run("restore", str(archive), "--gallery", str(again))
    assert (status, out.splitlines()[0]) == (0, f"{again}: {COUNT} images")
    assert run("restore", str(archive), "--gallery", str(again))[0] == 1
    assert run("restore", str(archive), "--gallery", str(again), "--replace")[0] == 0
    assert run("restore", str(archive), "--gallery", str(gallery.root), "--replace")[0] == 1, "it is served"
    assert run("restore", str(archive))[0] == 1


def test_exit_statuses_tell_what_to_do(
    run: Run, service: httpx.Client, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("stats", key=False)[0] == 4
    assert run("stats", "--key-file", str(tmp_path / "none"), key=False)[0] == 1
    monkeypatch.setenv("EIGENLENS_KEY", (gallery.root / "admin.key").read_text().strip())
    assert run("stats", key=False)[0] == 0
    monkeypatch.setenv("EIGENLENS_URL", str(service.base_url))
    assert main(["stats", "--json"]) == 0
    assert main(["stats", "--url", "http://127.0.0.1:9"]) == 5
    monkeypatch.setenv("EIGENLENS_KEY", "ünprintable")
    assert run("stats", key=False)[0] == 1
    monkeypatch.delenv("EIGENLENS_KEY")
    assert run("add", str(tmp_path / "nowhere"))[0] == 1
    assert run("search", str(tmp_path / "nowhere.png"), key=False)[0] == 1
    assert run("search", key=False)[0] == 1
    assert run("search", "--id", image_id(1), "--length", "5", key=False)[0] == 1
    assert run("search", "--id", "nowhere", key=False)[0] == 3
    for arguments in (
        ["rebuild", "--lengths", "x"],
        ["add"],
        ["add", "x", "--metadata", "["],
        ["images", "--limit=-1"],
    ):
        with pytest.raises(SystemExit) as wrong:
            run(*arguments)
        assert wrong.value.code == 2


def test_a_probe_says_whether_the_service_can_search(
    run: Run, service: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # is not asked
    assert run("ready", key=False) == (0, "", "")
    assert run("ready", "--live", key=False) == (0, "", "")
    monkeypatch.setenv("EIGENLENS_PORT", str(service.base_url.port))
    for host in ("0.0.0.0", "localhost"):
        monkeypatch.setenv("EIGENLENS_HOST", host)
        assert main(["ready"]) == 0
    monkeypatch.setenv("EIGENLENS_HOST", "127.0.0.2")
    assert main(["ready"]) == 5
    assert "127.0.0.2" in capsys.readouterr().err
    monkeypatch.delenv("EIGENLENS_HOST")
    monkeypatch.setenv("EIGENLENS_PORT", "9")
    for url, says in ((None, "no service answers at http://127.0.0.1:9"), ("localhost", "give an address such as")):
        assert main(["ready", *(["--url", url] if url else [])]) == 5
        assert says in capsys.readouterr().err
    assert main(["ready", "--url", f"{service.base_url}/none"]) == 5
    assert "answers 404" in capsys.readouterr().err


def test_the_probe_imports_little() -> None:
    program = "import sys, eigenlens.service.commands.ready; print(' '.join(sys.modules))"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "pydantic", "numpy", "fastapi"} & set(loaded)


def test_a_table_lines_up_and_obeys_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "bytes"), [("a\x1b[31m", "1,234"), ("longer", "5")])
    assert capsys.readouterr().out == "id         bytes\na\\x1b[31m  1,234\nlonger         5\n"
    assert plain("a\nb\x07") == "a\\x0ab\\x07"
