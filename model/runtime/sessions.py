"""Inference runtimes: an ONNX file becomes a function from pixels to codes, on the runtime that is there and faster."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.install import install_line
from eigenlens.model.errors import EncoderError

Session = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels (n, size, size, 3) or (n, squares, size, size, 3) in, codes (n, code_length) out.

It may be called from several threads at once.
"""

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
_TRIAL_S = 0.15
TRIAL_CALLS = 100
"""The best of so many calls hardly changes: an encoder that takes microseconds is not tried for longer."""
_TRIAL_BATCHES = (1, 16)
# Of a call, where a picture has several: as many as an import encodes of pictures that have one.
_MOST_SQUARES = 32
_SQUARE_AXES = 3
# OpenVINO takes more memory and more of the other cores: it has to be faster by more than trials vary.
_MAX_TIME_RATIO = 0.85


def open_session(
    path: Path, *, runtime: str, precision: str, threads: int, shape: Sequence[int], streams: int = 1
) -> tuple[Session, str]:
    """Open a session of an ONNX file; return it and the name of its runtime.

    Args:
        runtime: one of RUNTIMES, or "auto": of those that are installed the faster one.
        precision: one of PRECISIONS; bfloat16 needs OpenVINO, and a processor that computes in it.
        shape: of one picture's pixels. Where these are several squares, pictures are computed a few at a time, which
            bounds the memory.
        streams: calls that compute at the same time; they share the threads.

    Raises: EncoderError, if the runtime is not there or refuses the file.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"there is no precision '{precision}'; available: {', '.join(PRECISIONS)}")
    if precision == "bfloat16":
        runtime = "openvino"
    if runtime == "auto":
        return _faster(path, threads=threads, shape=shape, streams=streams)
    if runtime not in RUNTIMES:
        raise EncoderError(f"there is no runtime '{runtime}'; available: auto, {', '.join(RUNTIMES)}")
    if not installed(runtime):
        raise EncoderError(f"{runtime} is not installed: {install_line(runtime)}")
    if runtime == "openvino":
        session = _openvino(path, threads=threads, streams=streams, precision=precision)
    else:
        session = _onnxruntime(path, threads=max(1, threads // streams))
    return (_a_few_at_a_time(session, squares=shape[0]) if len(shape) > _SQUARE_AXES else session), runtime


def _a_few_at_a_time(session: Session, *, squares: int) -> Session:
    most = max(1, _MOST_SQUARES // squares)

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, max(1, len(pixels)), most)
        return np.concatenate([session(pixels[start : start + most]) for start in starts])

    return run


def installed(runtime: str) -> bool:
    """Return whether a runtime can be imported."""
    return importlib.util.find_spec(runtime) is not None


def computes_in_bfloat16() -> bool:
    """Whether OpenVINO is installed and this processor computes in bfloat16."""
    if not installed("openvino"):
        return False
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def seconds_per_image(
    session: Session, *, batch: int, shape: Sequence[int], trial_s: float, most_calls: int = sys.maxsize
) -> float:
    """Time calls for `trial_s` seconds, or so many calls, after one that warms up; return the best, by the image."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    session(pixels)
    best, calls, end = float("inf"), 0, time.perf_counter() + trial_s
    while calls == 0 or (calls < most_calls and time.perf_counter() < end):
        begun = time.perf_counter()
        session(pixels)
        best = min(best, time.perf_counter() - begun)
        calls += 1
    return best / batch


def _faster(path: Path, *, threads: int, shape: Sequence[int], streams: int) -> tuple[Session, str]:
    available = [name for name in RUNTIMES if installed(name)]
    options: dict[str, Any] = {"precision": "float32", "threads": threads, "shape": shape, "streams": streams}
    opened = {name: open_session(path, runtime=name, **options)[0] for name in available}
    chosen = available[0]
    if len(available) > 1:
        usual, other = (sum(_trials(opened[name], shape)) for name in available)
        chosen = available[other < _MAX_TIME_RATIO * usual]
    return opened[chosen], chosen


def _trials(session: Session, shape: Sequence[int]) -> list[float]:
    return [
        seconds_per_image(session, batch=batch, shape=shape, trial_s=_TRIAL_S, most_calls=TRIAL_CALLS)
        for batch in _TRIAL_BATCHES
    ]


def _onnxruntime(path: Path, *, threads: int) -> Session:
    # The runtime sends telemetry to its maker unless this is turned off before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from searches and decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common root but Exception
        raise EncoderError(f"ONNX Runtime cannot load {path}: {error}") from error
    name = session.get_inputs()[0].name

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        codes: NDArray[np.float32] = session.run(None, {name: pixels})[0]
        return codes

    return run


def _openvino_core() -> Any:
    # Its tools report their use to their maker, and keep an id for that in the home directory, unless they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it then fails
    import openvino

    return openvino.Core()


def _openvino(path: Path, *, threads: int, streams: int, precision: str) -> Session:
    # Set the precision: by default, the runtime computes in bfloat16 if the processor can.
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # A thread that is bound to a core waits for whatever runs there, while another core is free.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = _openvino_core()
        compiled: Any = core.compile_model(core.read_model(str(path)), "CPU", options)
    except Exception as error:  # OpenVINO's errors have no common root but RuntimeError
        raise EncoderError(f"OpenVINO cannot load {path}: {error}") from error
    if precision == "bfloat16" and not computes_in_bfloat16():
        raise EncoderError("this processor does not compute in bfloat16, which this encoder's codes are in")
    requests = threading.local()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = getattr(requests, "request", None)
        if request is None:
            request = requests.request = compiled.create_infer_request()
        request.infer({0: pixels}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run
