"""Inference runtimes: they agree, a precision is recorded and kept to, and what is not there is told."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.errors import EncoderError, ShapeError
from eigenlens.model.images.preprocessing import FIRST, WHOLE
from eigenlens.model.runtime import sessions
from eigenlens.model.runtime.encoder import Encoder
from tests.support.service import code_of, pixels_of, write_encoder

openvino = pytest.mark.skipif(not sessions.installed("openvino"), reason="openvino is not installed")
PIXELS = np.stack([pixels_of(seed) for seed in range(20)])
CODES = np.stack([code_of(pixels) for pixels in PIXELS])


@pytest.mark.parametrize(
    "runtime", ["onnxruntime", pytest.param("openvino", marks=openvino), pytest.param("auto", marks=openvino)]
)
def test_every_runtime_computes_the_same_codes(tmp_path: Path, runtime: str) -> None:
    encoder = Encoder(write_encoder(tmp_path / "encoder"), runtime=runtime)
    assert encoder.precision == "float32"
    assert encoder.runtime in (sessions.RUNTIMES if runtime == "auto" else (runtime,))
    for count in (20, 1, 7):
        np.testing.assert_allclose(encoder.encode(PIXELS[:count]), CODES[:count], atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=openvino)])
def test_streams_are_made_ready_and_compute_the_same_codes_at_the_same_time(tmp_path: Path, runtime: str) -> None:
    encoder = Encoder(write_encoder(tmp_path / "encoder"), runtime=runtime, threads=2, streams=2)
    encode, seen = encoder._session, list[tuple[int, int]]()

    def session(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append((threading.get_ident(), len(pixels)))
        return encode(pixels)

    encoder._session = session
    encoder.warm_up(max_batch=3)
    assert sorted(size for _, size in seen) == [1, 1, 2, 2, 3, 3]
    assert len({thread for thread, _ in seen}) == 2
    with ThreadPoolExecutor(2) as threads:
        for codes in threads.map(encoder.encode, [PIXELS] * 20):
            np.testing.assert_allclose(codes, CODES, atol=1e-4)


def test_a_stream_that_cannot_be_made_ready_is_told_and_none_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(write_encoder(tmp_path / "encoder"), runtime="onnxruntime", threads=2, streams=2)
    calls: list[int] = []

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise EncoderError("no memory")
        return CODES[: len(pixels)].astype(np.float32)

    monkeypatch.setattr(encoder, "_session", encode)
    with pytest.raises(EncoderError, match="no memory"):
        encoder.warm_up(max_batch=3)


@openvino
def test_no_thread_is_bound_to_a_core(tmp_path: Path) -> None:
    """Where another thread runs on that core, its search would wait, whatever the other cores do."""
    encoder = Encoder(write_encoder(tmp_path / "encoder"), runtime="openvino", streams=2)
    encoder.warm_up(max_batch=2)
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert len(threads) > 2
    assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset(os.sched_getaffinity(0))}


@pytest.mark.parametrize(
    ("alone_s", "each_s", "expected"),
    [(0.0, 3.0, 1), (0.2, 3.0, 1), (1.0, 3.0, 2), (1.0, 1.0, 4), (5.0, 0.0, 8)],
)
def test_a_batch_is_no_larger_than_makes_the_encoder_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone_s: float, each_s: float, expected: int
) -> None:
    """A call takes `alone_s`, and `each_s` more for each image."""
    encoder = Encoder(write_encoder(tmp_path / "encoder"))
    monkeypatch.setattr(
        "eigenlens.model.runtime.encoder.seconds_per_image", lambda _, *, batch, **__: alone_s / batch + each_s
    )
    assert encoder.worthwhile_batch(max_batch=8) == expected


def test_without_openvino_the_choice_is_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "installed", lambda runtime: runtime == "onnxruntime")
    path = write_encoder(tmp_path / "encoder")
    assert Encoder(path, runtime="auto").runtime == "onnxruntime"
    with pytest.raises(EncoderError, match=r"openvino is not installed: pip install -e .*\[openvino\]"):
        Encoder(path, precision="bfloat16")


def test_the_faster_runtime_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_encoder(tmp_path / "encoder") / "encoder.onnx"
    trials = {"onnxruntime": [2.0, 1.0], "openvino": [1.0, 1.0]}
    monkeypatch.setattr(sessions, "installed", lambda _: True)
    monkeypatch.setattr(sessions, "open_session", lambda _, *, runtime, **__: (runtime, runtime))
    monkeypatch.setattr(sessions, "_trials", lambda session, _: trials[session])
    assert sessions._faster(path, threads=1, streams=1, shape=(2, 2, 3))[1] == "openvino"
    trials["openvino"] = [1.0, 1.7]  # not by enough
    assert sessions._faster(path, threads=1, streams=1, shape=(2, 2, 3))[1] == "onnxruntime"


def test_pictures_of_several_squares_are_encoded_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a call is bounded as where each picture has one square, in batches of an import."""
    calls: list[int] = []
    real = sessions._onnxruntime

    def recording(*args: Any, **options: Any) -> sessions.Session:
        session = real(*args, **options)
        return lambda pixels: calls.append(len(pixels)) or session(pixels)  # type: ignore[func-returns-value]

    monkeypatch.setattr(sessions, "_onnxruntime", recording)
    squares = np.random.default_rng(0).integers(0, 256, (75, 2, 2, 3), dtype=np.uint8)
    one, three = (Encoder(write_encoder(tmp_path / framing, framing=framing)) for framing in ("centre", "crops"))
    single = one.encode(squares)
    assert calls == [75]
    calls.clear()
    np.testing.assert_allclose(
        three.encode(squares.reshape(25, 3, 2, 2, 3)), single.reshape(25, 3, -1).mean(1), atol=1e-3
    )
    assert calls == [10, 10, 5]
    assert three.encode(np.zeros((0, 3, 2, 2, 3), dtype=np.uint8)).shape == (0, three.code_length)
    with pytest.raises(ShapeError, match=r"takes uint8 \(n, \(3, 2, 2, 3\)\), not uint8 \(75, 2, 2, 3\)"):
        three.encode(squares)
    calls.clear()
    three.warm_up(max_batch=4)
    assert calls == [1, 2, 3, 4]
    assert three.worthwhile_batch(max_batch=16) >= 1
    assert max(calls) <= 10


def test_an_encoder_keeps_its_own_preprocessing_and_one_of_a_later_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = Encoder(write_encoder(tmp_path / "early"))
    assert "preprocessing" not in early.artifact.properties
    assert (early.preprocessing, early.input_shape) == (FIRST, (2, 2, 3))
    later = write_encoder(tmp_path / "later", framing="crops")
    monkeypatch.setattr("eigenlens.model.runtime.encoder.LATEST", WHOLE)
    with pytest.raises(EncoderError, match="only a later version"):
        Encoder(later)


@openvino
def test_an_encoder_is_run_in_the_precision_that_its_manifest_records(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder", precision="bfloat16")
    assert json.loads((path / artifact.MANIFEST).read_text())["properties"]["precision"] == "bfloat16"
    if "BF16" not in _capabilities():
        with pytest.raises(EncoderError, match="does not compute in bfloat16"):
            Encoder(path)
        return
    encoder = Encoder(path)
    assert (encoder.precision, encoder.runtime) == ("bfloat16", "openvino")
    assert encoder.id != Encoder(write_encoder(tmp_path / "other")).id
    np.testing.assert_allclose(encoder.encode(PIXELS), CODES, atol=1.0)


@pytest.mark.parametrize(("given", "told"), [("runtime", "runtime"), ("precision", "precision")])
def test_what_there_is_not_is_told(tmp_path: Path, given: str, told: str) -> None:
    path = write_encoder(tmp_path / "encoder")
    with pytest.raises(EncoderError, match=f"there is no {told} 'tea'; available: "):
        Encoder(path, **{given: "tea"})  # type: ignore[arg-type]


def _capabilities() -> list[str]:
    from openvino import Core

    return list(Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
