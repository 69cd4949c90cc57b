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
from eigenlens.benchmarks.common.records import append_records, make_record
from eigenlens.benchmarks.common.retrieval import retrieval_quality
from eigenlens.benchmarks.encoder.fashion import LabelledImages, encode_all
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.sources import open_source
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
        made = make_record(
            bench=BENCH,
            data=args.data,
            method=method,
            length=length,
            metric=metric,
            value=round(value, 5 if length else 1),
            unit=unit,
            params=params | more,
        )
        records.append(made)
        where = f"batch {more['batch']}" if "batch" in more else f"length {length}"
        print(f"{method:<22}{where:<12}{metric} {made['value']:g}")

    for method, session in sessions(args.encoder, encoder):
        for batch in _BATCHES:
            took = seconds_per_image(session, batch=batch, image_size=encoder.image_size, trial_s=args.trial_s)
            record(method, "images_per_s", 1 / took, batch=batch)
    if args.images and args.query_images:
        data = _labelled(args, encoder.image_size)
        sizes = {"gallery": len(data.gallery), "queries": len(data.queries), "k": _K}
        for method, opened in _precisions(args.encoder):
            codes = encode_all(opened, data.gallery, name="gallery"), encode_all(opened, data.queries, name="queries")
            lengths = choose_lengths(encoder.code_length)
            labels = data.gallery_labels, data.query_labels
            quality = retrieval_quality(*codes, *labels, lengths=lengths, precision_at=_K, map_at=_K)
            for length, found in quality.items():
                record(method, f"mAP@{_K}", found[f"mAP@{_K}"], length=length, **sizes)
    if args.results:
        append_records(args.results, records)


def sessions(path: Path, encoder: Encoder) -> Iterator[tuple[str, Session]]:
    """Every runtime that is there, by name: ONNX Runtime, OpenVINO in two precisions, torch."""
    yield REFERENCE, encoder.encode
    if installed("openvino"):
        for precision in ("float32", "bfloat16") if computes_in_bfloat16() else ("float32",):
            yield f"openvino-{precision}", Encoder(path, runtime="openvino", precision=precision).encode
    else:
        print("openvino is not installed: pip install 'eigenlens[openvino]'", file=sys.stderr)
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

    from eigenlens.model.export.export import WEIGHTS_FILE, ServingNetwork
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


def _labelled(args: argparse.Namespace, size: int) -> LabelledImages:
    gallery, labels = _load(args.images, size, args.count)
    queries, asked = _load(args.query_images, size, args.queries)
    names = {name: number for number, name in enumerate(sorted({*labels, *asked}))}

    def numbers(found: list[str]) -> NDArray[np.int64]:
        return np.array([names[name] for name in found], dtype=np.int64)

    return LabelledImages(gallery, numbers(labels), queries, numbers(asked))


def _load(name: str, size: int, count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Pixels and labels of at most `count` images, spread evenly over the source."""
    source = open_source(name)
    step = max(1, len(source) // count)
    pixels: list[NDArray[np.uint8]] = []
    labels: list[str] = []
    for place, image in enumerate(source):
        loaded = image.load(size) if place % step == 0 and len(pixels) < count else None
        if isinstance(loaded, np.ndarray):
            pixels.append(loaded)
            labels.append(str(image.metadata.get("label", "")))
    if not pixels:
        raise ConfigError(f"{name} has no images")
    return np.stack(pixels), labels
