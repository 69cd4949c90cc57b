"""The contract of a store, over SQLite and PostgreSQL: what is added, changed, removed, locked and told in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigenlens.service.errors import (
    DatabaseUnreachableError,
    GalleryBusyError,
    GalleryError,
    ImageContentGoneError,
    ImageNotFoundError,
    SettingsError,
)
from eigenlens.service.gallery.folders import known_folders, register_folder
from eigenlens.service.gallery.store.postgres import connections, schema
from eigenlens.service.gallery.store.postgres import store as postgres_store
from eigenlens.service.gallery.store.postgres.store import PostgresStore
from eigenlens.service.gallery.store.protocol import Store
from eigenlens.service.gallery.store.records import FileState, Job, Move, NewImage, Position
from eigenlens.service.gallery.store.sqlite import SqliteStore
from tests.support.postgres import Server

ENCODER = "encoder"
CODE = np.arange(3, dtype=np.float32)
Open = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one new store, again and again, as several processes do."""
    opened: list[Store] = []
    address = request.getfixturevalue("postgres").new_schema() if request.param == "postgres" else ""

    def open_store() -> Store:
        store: Store
        if address:
            store = PostgresStore(address, create=True)
        else:
            store = SqliteStore(tmp_path / "gallery.sqlite", create=True)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(open_again: Open) -> Store:
    return open_again()


def image(id: str, content: bytes = b"\0bytes\xff", /, **metadata: Any) -> NewImage:
    return NewImage(id, "image/png", 2, 3, content.hex(), metadata, CODE, data=content)


def put(store: Store, *ids: str) -> list[int]:
    """Adds images; returns their keys."""
    store.put([image(id) for id in ids], encoder_id=ENCODER)
    return [store.record(id).key for id in ids]


def test_what_is_put_is_read_again(store: Store) -> None:
    odd: dict[str, Any] = {"label": 'a "quoted" \0 \u2603', "half": "\ud800", "n": 1.5, "none": None, "list": [1]}
    assert store.put([image("a/é.png", b"\0bytes\xff", **odd), image("b.png")], encoder_id=ENCODER) == [False, False]
    record = store.record("a/é.png")
    assert (record.media_type, record.width, record.height, record.metadata) == ("image/png", 2, 3, odd)
    assert store.record("a/e\u0301.png") == record, "in another spelling"
    assert store.content(record.key) == b"\0bytes\xff"
    assert store.count() == 2
    assert store.records([record.key, 999]) == {record.key: record}
    assert store.existing([record.key, 999]) == {record.key}
    assert store.existing([]) == set()
    assert store.keys_of(["a/é.png", "none", "\ud800", "\0"]) == [record.key]
    assert store.keys_of([]) == []
    np.testing.assert_array_equal(store.codes_of([record.key, 999], encoder_id=ENCODER)[record.key], CODE)
    assert store.codes_of([record.key], encoder_id="other") == {}
    assert list(store.metadata_of([999, record.key])) == [{}, odd]
    for unknown in ("none", "\0", "\ud800"):
        with pytest.raises(ImageNotFoundError):
            store.record(unknown)
    with pytest.raises(ImageNotFoundError):
        store.content(999)


def test_ids_are_ordered_by_their_bytes(store: Store) -> None:
    ids = ["B", "a", "a/1", "a/é", "a/\U0001f600", "a\uffff", "ä", "Z-"]
    put(store, *ids)
    ordered = sorted(ids, key=str.encode)
    assert [record.id for record in store.page(10)] == ordered
    assert [record.id for record in store.page(2, after=ordered[2])] == ordered[3:5]
    assert [record.id for record in store.page(10, prefix="a/")] == [id for id in ordered if id.startswith("a/")]
    assert store.page(10, prefix="\ud800") == store.page(10, after="\0") == []


def test_values_of_a_field_are_texts(store: Store) -> None:
    values: list[Any] = ["x", 3, 2.5, True, False, None, [1], {"a": 1}]
    store.put([image(str(place), b"x", **{'a "b"': value}) for place, value in enumerate(values)], encoder_id=ENCODER)
    keys, texts = store.values_of('a "b"')
    assert texts == ["x", "3", "2.5", "true", "false"]
    assert [store.records([key])[key].id for key in keys.tolist()] == ["0", "1", "2", "3", "4"]


def test_keys_only_grow_and_changes_tell_what_happened_since(store: Store, open_again: Open) -> None:
    first, second = put(store, "a", "b")
    start = store.changes(Position(0, 0), encoder_id=ENCODER)
    assert (start.keys, start.removed) == ([first, second], [])
    other = open_again()
    version = store.version()
    assert other.put([image("a", b"new")], encoder_id=ENCODER) == [True]
    assert store.version() != version
    assert other.remove(["b", "b"]) == [True, False]
    assert other.replace_metadata("a", {"x": 1}, key=first, code=CODE, encoder_id=ENCODER) is False
    third = store.record("a").key
    assert other.replace_metadata("a", {"x": 1}, key=third, code=CODE + 1, encoder_id=ENCODER) is True
    fourth = store.record("a").key
    assert first < second < third < fourth
    assert store.content(fourth) == b"new"
    changes = store.changes(start.position, encoder_id=ENCODER)
    assert (changes.keys, changes.removed, changes.metadata) == ([fourth], [first, second, third], [{"x": 1}])
    np.testing.assert_array_equal(changes.codes, [CODE + 1])
    assert store.changes(changes.position, encoder_id=ENCODER).position == changes.position
    keys, removal = store.contents()
    assert (keys.tolist(), removal) == ([fourth], changes.position.removal)
    store.forget(changes.position)
    assert store.coded_keys(encoder_id=ENCODER).tolist() == []
    store.put_codes([fourth, 999], np.stack([CODE, CODE]), encoder_id=ENCODER)
    store.put_codes([fourth], CODE[None] + 2, encoder_id=ENCODER)
    assert store.coded_keys(encoder_id=ENCODER).tolist() == [fourth]
    np.testing.assert_array_equal(store.codes_of([fourth], encoder_id=ENCODER)[fourth], CODE + 2)
    store.remove(["a"])
    fifth = put(store, "a")[0]
    assert fifth > fourth, "keys are never used again"
    assert store.remove_keys([fourth]) == 0, "another image has its id"
    assert store.changes(changes.position, encoder_id=ENCODER).removed == [fourth]
    assert store.remove_keys([fourth, fifth]) == 1
    assert store.changes(changes.position, encoder_id=ENCODER).removed == [fourth, fifth]


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    put(store, "a")
    broken = NewImage("b", "image/png", 2, 3, "00", {}, CODE, data=None, path=Path("x"))
    with pytest.raises(TypeError):
        store.put([image("a", b"new"), broken, image("c", bad=object())], encoder_id=ENCODER)
    assert [record.id for record in store.page(9)] == ["a"]
    assert store.content(store.record("a").key) == b"\0bytes\xff"


def test_writers_take_turns_so_that_changes_are_seen_in_the_order_of_their_keys(open_again: Open) -> None:
    """A key that becomes visible after a later one is missed by whoever has read that one."""
    first, second, reader = open_again(), open_again(), open_again()
    begun, may_end = threading.Event(), threading.Event()

    def images() -> Iterator[NewImage]:
        yield image("a")
        begun.set()
        assert may_end.wait(30)
        yield image("b")

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(first.put, images(), encoder_id=ENCODER)
        assert begun.wait(30)
        quick = pool.submit(second.put, [image("c")], encoder_id=ENCODER)
        try:
            assert not wait([quick], timeout=0.2).done
            assert reader.changes(Position(0, 0), encoder_id=ENCODER).keys == []
        finally:
            may_end.set()
        assert (slow.result(), quick.result()) == ([False, False], [False])
    keys = reader.changes(Position(0, 0), encoder_id=ENCODER).keys
    assert keys == [reader.record(id).key for id in "abc"]


def test_files_of_folders_are_referenced_and_followed(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "x\udcff.png"
    file.write_bytes(b"here")
    folder = register_folder(store, tmp_path, follow_links=True)
    assert (folder.name, known_folders(store)) == ("", [folder])
    assert register_folder(store, tmp_path).follow_links, "links once followed stay so"
    added = NewImage("x.png", "image/png", 1, 1, sha256_of(b"here"), {"a": 1}, CODE, path=file)
    store.put([added], encoder_id=ENCODER)
    put(store, "uploaded")
    assert store.holds("x.png", checksum=added.sha256, path=file, metadata=None)
    assert not store.holds("x.png", checksum="other", path=file, metadata=None)
    assert not store.holds("x.png", checksum=added.sha256, path=file, metadata={})
    key = store.record("x.png").key
    assert store.content(key) == b"here"
    assert store.stored_files(folder)["x.png"].size == -1
    store.record_files(folder, [FileState("x.png", file, 4, 5), FileState("none", file, 4, 5)])
    stored = store.stored_files(folder)["x.png"]
    assert (stored.key, stored.size, stored.mtime_ns, stored.path) == (key, 4, 5, str(file))
    assert store.ids_of_others(folder) == {"uploaded": store.record("uploaded").sha256}
    moves = [Move(key, id, tmp_path / "y.png", {"b": 2}, CODE) for id in ("uploaded", "y.png")]
    assert store.move_images(moves, encoder_id=ENCODER) == ["y.png"]
    moved = store.record("y.png")
    assert (moved.metadata, store.stored_files(folder)["y.png"].size) == ({"b": 2}, 4)
    assert moved.key > key
    assert store.changes(Position(0, 0), encoder_id=ENCODER).removed == [key]
    with pytest.raises(ImageContentGoneError):
        store.content(moved.key)
    assert [[store.records([key])[key].id for key in group] for group in store.copies()] == []


def sha256_of(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def new_job(id: str) -> Job:
    return Job(id, "rebuild", "queued", "", 0, 0, {"a": [1]}, None, None, "2026-01-01T00:00:00.000+00:00", None, None)


def test_one_job_at_a_time_and_each_ends_once(store: Store) -> None:
    assert store.create_job(new_job("one")) is None
    assert store.create_job(new_job("two")) == "one"
    store.record_progress("one", stage="encode", done=1, total=2)
    job = store.job("one")
    assert job is not None
    assert (job.state, job.stage, job.done, job.total, job.options) == ("running", "encode", 1, 2, {"a": [1]})
    assert store.cancel_job("one")
    store.record_result("one", {"images": 3})
    assert not store.cancel_job("one"), "it has reached its result"
    store.finish_job("one", state="done", error=None, finished="now")
    store.finish_job("one", state="failed", error="late", finished="later")
    assert store.create_job(new_job("two")) is None
    store.record_generation("two", 7)
    two, one = store.jobs(5)
    assert (one.state, one.finished, one.error, one.result) == ("done", "now", None, {"images": 3})
    assert (two.id, two.generation, store.jobs(1)) == ("two", 7, [two])
    assert store.job("none") is store.job("\0") is None


def test_locks_exclude_and_are_shared(store: Store, open_again: Open) -> None:
    other = open_again()
    lock = store.lock("job")
    assert lock is not None
    lock.verify()
    assert other.lock("job") is other.lock("job", shared=True) is None
    free = other.lock("writer")
    assert free is not None
    free.close()
    assert lock.share()
    assert other.lock("job", wait_s=0.05) is None
    shared = other.lock("job", shared=True)
    assert shared is not None
    lock.close()
    assert store.lock("job") is None
    threading.Timer(0.1, shared.close).start()
    again = store.lock("job", wait_s=None)
    assert again is not None
    again.close()


def test_what_is_served_is_told_to_every_process(store: Store, open_again: Open) -> None:
    other = open_again()
    assert store.current() is None
    other.activate(3)
    assert store.current() == 3
    before = store.last_forgetting()
    assert before is None
    other.record_forgetting()
    assert store.last_forgetting() == other.last_forgetting() != before


def test_a_copy_takes_the_place_of_the_images(store: Store, tmp_path: Path) -> None:
    folder = register_folder(store, tmp_path)
    kept, changed, gone = put(store, "kept", "changed", "gone")
    file = tmp_path / "f.png"
    store.put([NewImage("f.png", "image/png", 1, 1, "00", {}, CODE, path=file)], encoder_id=ENCODER)
    store.record_files(folder, [FileState("f.png", file, 4, 5)])
    store.create_job(new_job("one"))
    store.remove(["gone"])
    store.copy_to(tmp_path / "copy.sqlite")
    copy = SqliteStore(tmp_path / "copy.sqlite")
    assert [record.id for record in copy.page(9)] == ["changed", "f.png", "kept"]
    assert copy.changes(Position(0, 0), encoder_id=ENCODER).removed == [gone]
    assert put(copy, "next")[0] > store.record("f.png").key
    copy.remove(["next"])
    assert copy.job("one") == store.job("one")
    copy.close()
    store.put([image("changed", b"new"), image("later")], encoder_id=ENCODER)
    store.remove(["f.png"])
    store.forget(Position(kept, 0))
    assert store.replace_by(tmp_path / "copy.sqlite", lambda _: CODE.tobytes(), encoder_id=ENCODER) == (2, 2)
    assert [record.id for record in store.page(9)] == ["changed", "f.png", "kept"]
    assert store.record("kept").key == kept
    assert store.content(store.record("changed").key) == b"\0bytes\xff"
    assert store.stored_files(folder)["f.png"].size == 4
    assert store.record("changed").key > changed
    assert store.size_bytes() > 0
    # A machine that does much else at the same time may be told of as slow.
    assert all("to answer" in problem for problem in store.problems())


def test_the_server_that_is_gone_is_told_and_used_again_when_it_is_back(postgres: Server) -> None:
    store = PostgresStore(postgres.new_schema(), create=True)
    put(store, "a")
    lock = store.lock("writer")
    assert lock is not None
    postgres.stop()
    try:
        for call in (store.count, lambda: put(store, "b"), lambda: store.lock("job")):
            with pytest.raises(DatabaseUnreachableError, match="try again") as refused:
                call()
            assert postgres.password not in str(refused.value)
    finally:
        postgres.start()
    with pytest.raises(GalleryBusyError, match="nothing was switched"):
        lock.verify()
    lock.close()
    assert put(store, "b")
    assert store.count() == 2
    store.close()


def test_what_cannot_be_a_store_says_why(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = postgres.new_schema()
    with pytest.raises(GalleryError, match="there is no gallery in PostgreSQL at 127"):
        PostgresStore(address)
    with pytest.raises(DatabaseUnreachableError, match=r"authentication failed.*correct the store"):
        PostgresStore(postgres.address(password="wrong"), create=True)
    with pytest.raises(GalleryError, match="CREATE SCHEMA"):
        PostgresStore(postgres.address("missing"), create=True)
    with pytest.raises(SettingsError, match="cannot be read") as unread:
        connections.Connections("postgresql://user:secret@host/x?nonsense=1")
    assert "secret" not in str(unread.value)
    PostgresStore(address, create=True).close()
    monkeypatch.setattr(postgres_store, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN more TEXT"))
    for _ in range(2):
        newer = PostgresStore(address)
        newer.query("SELECT more FROM jobs")
        newer.close()
    monkeypatch.setattr(postgres_store, "MIGRATIONS", schema.MIGRATIONS)
    with pytest.raises(GalleryError, match="version 2 of the tables; this version of Eigenlens reads 1"):
        PostgresStore(address)
