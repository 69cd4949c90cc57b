"""`eigenlens bench kinds`: whether photographs find their kind in a gallery, or are told that it knows nothing like it.

The sample's pictures of clothes are grey, small and on black. Photographs of the same clothes are not, so each search
must either find the kind of its query or say that nothing here looks like it. What does neither misleads. The sample's
own pictures can be asked for as shops show them, dark on white, without themselves among the results.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.service_process import running_service
from eigenlens.model.errors import ConfigError
from eigenlens.model.images.fashion_mnist import LABELS
from eigenlens.model.images.sources import Source, SourceImage, open_source
from eigenlens.service.client import Client

# Classes of the clothing dataset, and the labels of Fashion-MNIST that are of their kind; others have no kind there.
# Then those of Fashion-MNIST itself.
CLOTHES = {
    "dress": ("Dress",),
    "longsleeve": ("Pullover", "Shirt"),
    "outwear": ("Coat",),
    "pants": ("Trouser",),
    "shirt": ("Shirt",),
    "shoes": ("Sneaker", "Ankle boot", "Sandal"),
    "t-shirt": ("T-shirt/top",),
} | {label: (label,) for label in LABELS}
_K = 10
# Sides of a thing and of the picture that a shop shows it in.
_THING, _PICTURE = 420, (800, 600)
# A best result that is less like the query than most images are like their nearest other: the page says so.
UNLIKE_BEST_PERCENTILE = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="a gallery of the sample")
    parser.add_argument("--images", metavar="SOURCE", required=True, help="photographs in folders by class")
    parser.add_argument("--data", help="name of the photographs in the records (default: that of the source)")
    parser.add_argument("--queries", type=positive, default=40, help="photographs a class (default: %(default)s)")
    parser.add_argument(
        "--on-white", action="store_true", help="the images are grey things on black: show them as shops do, on white"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


def run(args: argparse.Namespace) -> None:
    """Ask a service of the gallery for the ten nearest of each photograph; print a table. Raises: EigenlensError."""
    by_class = _choose(open_source(args.images), args.queries)
    if args.on_white:
        by_class = {
            name: [replace(image, data=_on_white(image.data)) for image in images] for name, images in by_class.items()
        }
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(args.gallery, Path(folder) / "log") as server,
        Client(server.address) as client,
    ):
        measured = {name: _measure(client, images, CLOTHES[name]) for name, images in by_class.items()}
    print(f"{'photographs of':<16}{'':>6}{'of their kind':>16}{'at least half':>16}{'told unlike':>14}{'neither':>10}")
    for name, shares in measured.items():
        print(
            f"{name:<16}{len(by_class[name]):>6}{shares['of_kind']:>16.1%}{shares['at_least_half']:>16.1%}"
            f"{shares['told']:>14.1%}{shares['neither']:>10.1%}"
        )
    if args.results:
        data = args.data or Path(args.images).name.partition(".")[0] + ("-on-white" if args.on_white else "")
        append_records(
            args.results,
            [
                make_record(Subject("kinds", data, "service", params={"class": name, "queries": len(images)}), *value)
                for name, images in by_class.items()
                for value in measured[name].items()
            ],
        )


def _choose(images: Source, count: int) -> Mapping[str, list[SourceImage]]:
    """Return the first images of each class that has a kind in the sample. Raises: ConfigError, where none has."""
    chosen: defaultdict[str, list[SourceImage]] = defaultdict(list)
    for image in images:
        label = str(image.metadata.get("label", ""))
        if label in CLOTHES and len(chosen[label]) < count:
            chosen[label].append(image)
    if not chosen:
        raise ConfigError(f"none of the images is in a folder of {', '.join(CLOTHES)}")
    return dict(sorted(chosen.items()))


def _on_white(data: bytes) -> bytes:
    """Return a grey picture of a thing on black as a photograph (JPEG) of a dark thing on white, with a margin."""
    thing = ImageOps.invert(Image.open(io.BytesIO(data)).convert("L"))
    picture, file = Image.new("L", _PICTURE, "white"), io.BytesIO()
    left, top = ((whole - _THING) // 2 for whole in _PICTURE)
    picture.paste(thing.resize((_THING, _THING), Image.Resampling.BICUBIC), (left, top))
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _measure(client: Client, images: Sequence[SourceImage], kind: Sequence[str]) -> dict[str, float]:
    """Return shares of searches.

    `of_kind` is the mean share of the ten results that are of the kind; the others are shares of the photographs:
    `at_least_half`, where half of the ten or more are; `told`, where the service says that nothing looks like it, by
    its code or by its best result; `neither`, where neither is the case.
    """
    shares, told = np.zeros(len(images)), np.zeros(len(images), dtype=bool)
    for number, image in enumerate(images):
        answer = client.search(image.data, k=_K + 1)
        others = [result for result in answer.results if result.id != image.id][:_K]
        shares[number] = np.mean([(result.metadata or {}).get("label") in kind for result in others])
        best = answer.best_percentile
        told[number] = bool(answer.unlike_everything) or (best is not None and best < UNLIKE_BEST_PERCENTILE)
    half = shares >= 0.5
    values = {"of_kind": shares, "at_least_half": half, "told": told, "neither": ~half & ~told}
    return {name: round(float(np.mean(value)), 4) for name, value in values.items()}
