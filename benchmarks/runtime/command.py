"""Which inference runtime, in which precision: images a second, and what a reduced precision costs in retrieval."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.labelled import encode_all, sample_labelled
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.retrieval import Cutoffs, LabelledCodes, retrieval_quality
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.install import install_line
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.sessions import Session, computes_in_bfloat16, installed, seconds_per_image

BENCH = "runtime"
_BATCHES = (1, 16)
_K = 100
REFERENCE = "onnxruntime-float32"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="encoder artifact")
    parser.add_argument("--images", metavar="SOURCE", help="a gallery whose folders are its labels, to retrieve from")
    parser.add_argument("--query-images", metavar="SOURCE", help="queries whose folders are their labels")
    parser.add_argument("--count", type=positive, default=10_000, help="images of the gallery at most (default: 10000)")
    parser.add_argument("--queries", type=positive, default=2_000, help="queries at most (default: 2000)")
    parser.add_argument("--trial-s", type=float, default=2.0, help="seconds of each timing (default: %(default)s)")
    parser.add_argument("--data", default="cifar10", help="name of the images in the records (default: cifar10)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Time every runtime, then compare what precisions retrieve. Raises: EigenlensError."""
    encoder = Encoder(args.encoder, precision="float32")
    params = {"encoder": encoder.id, "image_size": encoder.image_size}
    records: list[dict[str, Any]] = []

    def record(method: str, metric: str, value: float, *, length: int | None = None, **more: Any) -> None:
        unit = "1/s" if metric == "images_per_s" else ""
        subject = Subject(bench=BENCH, data=args.data, method=method, length=length, params=params | more)
        made = make_record(subject, metric, round(value, 5 if length else 1), unit)
        records.append(made)
        where = f"batch {more['batch']}" if "batch" in more else f"length {length}"
        print(f"{method:<22}{where:<12}{metric} {made['value']:g}")

    for method, session in sessions(args.encoder, encoder):
        for batch in _BATCHES:
            took = seconds_per_image(session, batch=batch, shape=encoder.input_shape, trial_s=args.trial_s)
            record(method, "images_per_s", 1 / took, batch=batch)
    if args.images and args.query_images:
        sources = (args.images, args.count), (args.query_images, args.queries)
        gallery, queries = sample_labelled(sources, side=encoder.image_size)
        sizes = {"gallery": len(gallery), "queries": len(queries), "k": _K}
        for method, opened in _precisions(args.encoder):
            codes = LabelledCodes(
                encode_all(opened, gallery.pixels, name="gallery"),
                gallery.labels,
                encode_all(opened, queries.pixels, name="queries"),
                queries.labels,
            )
            quality = retrieval_quality(codes, lengths=choose_lengths(encoder.code_length), at=Cutoffs(_K, _K))
            for length, measures in quality.items():
                record(method, f"mAP@{_K}", measures[f"mAP@{_K}"], length=length, **sizes)
    if args.results:
        append_records(args.results, records)


def sessions(path: Path, encoder: Encoder) -> Iterator[tuple[str, Session]]:
    """Every runtime that is there, by name: ONNX Runtime, OpenVINO in two precisions, torch."""
    yield REFERENCE, encoder.encode
    if installed("openvino"):
        for precision in ("float32", "bfloat16") if computes_in_bfloat16() else ("float32",):
            yield f"openvino-{precision}", Encoder(path, runtime="openvino", precision=precision).encode
    else:
        print(f"openvino is not installed: {install_line('openvino')}", file=sys.stderr)
    if installed("openvino") and not computes_in_bfloat16():
        print("this processor does not compute in bfloat16: not measured", file=sys.stderr)
    training = encoder.artifact.properties["training"]
    if "neighbours" in training.get("spectrum", {}):
        yield "torch-float32", _torch(path, training)
    else:
        print(f"{path} was not made by this version's `eigenlens export`: not measured in torch", file=sys.stderr)


def _precisions(path: Path) -> Iterator[tuple[str, Encoder]]:
    yield REFERENCE, Encoder(path, precision="float32")
    if computes_in_bfloat16():
        yield "openvino-bfloat16", Encoder(path, precision="bfloat16")


def _torch(path: Path, training: Mapping[str, Any]) -> Session:
    import torch
    from safetensors.torch import load_file

    from eigenlens.model.export.export import WEIGHTS_FILE
    from eigenlens.model.export.onnx_file import ServingNetwork
    from eigenlens.model.network import CodeNetwork, EncoderNetwork

    names = ("hidden_length", "hidden_layers", "code_length")
    trained = EncoderNetwork(training["backbone"], **{name: training[name] for name in names})
    spectrum = training["spectrum"]
    # Encoders of earlier versions have no leading functions.
    leading = spectrum.get("leading", 0)
    network = CodeNetwork(trained, basis=spectrum["basis"], leading=leading, code_length=training["code_length"])
    network.load_state_dict(load_file(path / WEIGHTS_FILE))
    serving = ServingNetwork(network).eval()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            codes: NDArray[np.float32] = serving(torch.from_numpy(pixels)).numpy()
        return codes

    return run
