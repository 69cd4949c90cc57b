"""`eigenlens bench gpu`: everything that a GPU changes, part by part, each in a process and a time of its own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from eigenlens import artifact
from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import append_records
from eigenlens.benchmarks.gpu import training
from eigenlens.benchmarks.gpu.context import Context, NoGpuHereError
from eigenlens.model.errors import ConfigError
from eigenlens.model.training.devices import choose_device

RECORDS = "gpu.jsonl"
_STOP_S = 5.0
_SIDE = 8192


def limits(context: Context) -> Iterator[dict[str, Any]]:
    """Measure what the device can do at most: a matrix product in bf16 and a copy."""
    device, side = context.device, context.size(_SIDE, 256)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    buffer = torch.empty(context.size(2**31, 2**20), dtype=torch.uint8, device=device)
    for metric, unit, work, call in (
        ("matrix product in bf16", "TFLOP/s", 2 * side**3 / 1e12, lambda: a @ b),
        ("copy, read and written", "GB/s", 2 * buffer.numel() / 1e9, buffer.clone),
    ):
        yield context.record("limits", metric, round(work / _seconds_of(call, device), 2), unit)


def tests(context: Context) -> Iterator[dict[str, Any]]:
    """Run the suite's tests of searching on a GPU, on the GPU where there is one.

    Raises: NoGpuHereError, without a checkout; RuntimeError, with pytest's last words, if one fails.
    """
    folder = Path(__file__).resolve().parents[2] / "tests"
    if not folder.is_dir():
        raise NoGpuHereError("the tests are in a checkout only")
    if context.small:
        raise NoGpuHereError("the suite runs them without a GPU")
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        str(folder / "index" / "test_gpu.py"),
    ]
    words += ["-n", "8"] if find_spec("xdist") else []
    done = subprocess.run([sys.executable, *words], cwd=folder.parent, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[-300:]]
    print("\n".join(done.stdout.strip().splitlines()[-60:]), file=sys.stderr)
    for outcome in ("passed", "failed", "skipped", "error"):
        words = summary[0].replace(",", "").split()
        if outcome in words:
            yield context.record("tests", outcome, float(words[words.index(outcome) - 1]))
    if done.returncode:
        raise RuntimeError(summary[0])


def faiss_search(context: Context) -> Iterator[dict[str, Any]]:
    """Build and search flat and IVF indexes with and without the GPU."""
    from eigenlens.benchmarks.gpu.search import faiss_search

    yield from faiss_search(context)


def service(context: Context) -> Iterator[dict[str, Any]]:
    """Serve a gallery from the GPU and from the CPU."""
    from eigenlens.benchmarks.gpu.search import service

    yield from service(context)


@dataclass(frozen=True)
class Part:
    """One part of the check: what it measures, and the most seconds that it may take on a GPU."""

    measure: Callable[[Context], Iterator[dict[str, Any]]]
    seconds: int


PARTS = {
    "limits": Part(limits, 30),
    "equality": Part(training.equality, 60),
    "process-group": Part(training.process_group, 60),
    "faiss": Part(faiss_search, 150),
    "export": Part(training.export, 90),
    "service": Part(service, 90),
    "steps": Part(training.steps, 180),
    "tests": Part(tests, 150),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help=f"where {RECORDS} and what the parts make are kept"
    )
    parser.add_argument("--minutes", type=positive, default=10, help="begin no part after so long (default: 10)")
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), default=list(PARTS), metavar="NAME,...", help="which to run"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument(
        "--small", action="store_true", help="small sizes, as on a machine without a GPU: does it all run?"
    )


def run(args: argparse.Namespace) -> None:
    """Run what is not done yet. Raises: ConfigError, if a part is unknown, or one fails."""
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        raise ConfigError(f"there is no part '{unknown[0]}'; available: {', '.join(PARTS)}")
    device = choose_device(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    context = Context(device, args.small or device.type != "cuda", args.out / "work")
    started, failed = time.monotonic(), []
    for name in args.parts:
        state = args.out / f"{name}.json"
        if state.exists() and json.loads(state.read_text())["status"] == "done":
            print(f"{name}: done already", flush=True)
            continue
        left = 60 * args.minutes - (time.monotonic() - started)
        if left <= 0:
            print(f"{name}: no time is left for it; run the command again", flush=True)
            failed.append(name)
            continue
        status = _run_part(name, context, state, seconds=min(PARTS[name].seconds, left))
        if status["status"] == "failed":
            failed.append(name)
        reason = f": {status['reason']}" if "reason" in status else ""
        print(f"{name}: {status['status']} in {status['seconds']:.1f} s{reason}", flush=True)
    if failed:
        raise ConfigError(f"not done: {', '.join(failed)}; run the command again for these")


def _run_part(name: str, context: Context, state: Path, *, seconds: float) -> dict[str, Any]:
    """Run one part, which leaves its outcome in `state`: in a process of its own, unless it is small."""
    context.work.mkdir(exist_ok=True)
    started = time.monotonic()
    if context.small:
        _measure(name, context, state)
        outcome: dict[str, Any] = json.loads(state.read_text())
        outcome["seconds"] = time.monotonic() - started
        artifact.write_atomic(state, json.dumps(outcome).encode())
        return outcome
    # Spawned, not forked: the parent's torch may have initialised CUDA.
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(name, context, state))
    state.unlink(missing_ok=True)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.terminate()
        process.join(_STOP_S)
        process.kill()
        process.join()
    outcome = {"status": "failed", "reason": f"ended with {process.exitcode}, of {seconds:.0f} s"}
    if state.exists():
        outcome = json.loads(state.read_text())
    outcome["seconds"] = time.monotonic() - started
    artifact.write_atomic(state, json.dumps(outcome).encode())
    return outcome


def _measure(name: str, context: Context, state: Path) -> None:
    """Measure one part; every record is kept as soon as it is there."""
    outcome: dict[str, Any] = {"status": "done"}
    try:
        for record in PARTS[name].measure(context):
            append_records(state.with_name(RECORDS), [record])
            params = {key: value for key, value in record["params"].items() if key != "on"}
            words = " ".join(f"{key}={value}" for key, value in params.items())
            print(f"  {name}: {record['metric']} {record['value']:g} {record['unit']}  {words}", flush=True)
    except NoGpuHereError as reason:
        outcome = {"status": "skipped", "reason": str(reason)}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {str(error)[:300]}"}
    artifact.write_atomic(state, json.dumps(outcome).encode())


def _seconds_of(call: Callable[[], object], device: torch.device, *, calls: int = 10) -> float:
    """Return the mean seconds of a call, after one that is not counted."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / calls
