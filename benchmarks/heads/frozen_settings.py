"""`eigenlens bench frozen`: what image size, framing and pooling of a frozen backbone add to codes, and their cost.

For each setting a head is fitted to every third of the training photographs and one view of each, with one ridge and
diffusion time for all, beside PCA of the square roots of the same features. Where crops are seen, both are fitted to
the centred squares, as `eigenlens fit` does. Two measures: the reciprocal rank with
which hard views of the validation photographs find theirs among these, to choose by, and Holidays, to report. The cost
is images a second of the backbone on one thread, all settings by turns in one run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.pca import Features, principal_components
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.heads.evaluate import SCENES, is_query, paired_interval, reciprocal_ranks, scene_precisions
from eigenlens.benchmarks.heads.pooled_twice import POOLINGS, open_pooled_twice
from eigenlens.model.backbones.efficientnet import EFFICIENTNET
from eigenlens.model.commands.fit import AUGMENTATION
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.heads.features import cache_features, power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head
from eigenlens.model.heads.frozen import open_over_crops
from eigenlens.model.images.hard_views import HardViews
from eigenlens.model.images.preprocessing import CROP_PLACES
from eigenlens.model.images.sources import Framed, Source, SubsampledSource, open_source
from eigenlens.model.runtime.encoder import Encoder

LENGTHS = (8, 16, 32, 64, 128, 256)
VALIDATION = "clothing-hard-views"
SPEED = "images/s"
_TRAINING_PHOTOGRAPHS = 1023
_HEAD_SETTINGS = HeadSettings("views", ridge=0.3, diffusion_time=2.0)
_PLAIN = AugmentationConfig()
_BATCH, _ROUNDS = 8, 12


@dataclass(frozen=True)
class FrozenSetting:
    """What a backbone sees of a picture: in one of FRAMINGS, squares of a side in pixels."""

    size: int
    framing: str
    backbone: str = EFFICIENTNET

    @property
    def squares(self) -> int:
        return len(CROP_PLACES) if self.framing == "crops" else 1

    def open(self, work: Path, *, threads: int | None = None) -> Encoder:
        backbone = open_pooled_twice(self.size, work, name=self.backbone)
        return backbone if threads is None else Encoder(backbone.artifact.path, threads=threads)


SETTINGS: Mapping[str, FrozenSetting] = {
    "224 px": FrozenSetting(224, "centre"),
    "224 px, whole": FrozenSetting(224, "whole"),
    "288 px": FrozenSetting(288, "centre"),
    "224 px, three crops": FrozenSetting(224, "crops"),
    "320 px": FrozenSetting(320, "centre"),
    "288 px, whole": FrozenSetting(288, "whole"),
    "Lite1, 240 px": FrozenSetting(240, "centre", "efficientnet-lite1"),
    "Lite2, 260 px": FrozenSetting(260, "centre", "efficientnet-lite2"),
    "Lite2, 260 px, three crops": FrozenSetting(260, "crops", "efficientnet-lite2"),
}
BASE = "224 px"
HEAD, COMPONENTS = "views", "pca-of-roots"


@dataclass(frozen=True)
class _Measured:
    """Square roots of the features of what is measured on: validation photographs, hard views of them, and scenes."""

    validation: Features
    hard_views: Features
    scenes: Features
    scene_names: NDArray[np.str_]
    scene_queries: NDArray[np.bool_]

    def precisions(self, code: Callable[[Features], Features], length: int) -> dict[str, NDArray[np.float64]]:
        validation, views, scenes = (code(part)[:, :length] for part in (self.validation, self.hard_views, self.scenes))
        return {
            VALIDATION: reciprocal_ranks(views, validation),
            SCENES: scene_precisions(scenes, self.scene_names, self.scene_queries),
        }


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--train", metavar="SOURCE", required=True, help="photographs to fit to")
    parser.add_argument("--validation", metavar="SOURCE", required=True, help="photographs to choose a setting by")
    parser.add_argument("--scenes", metavar="SOURCE", required=True, help="Holidays: scene/number.jpg, ..00 the query")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where features are kept")
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=tuple(SETTINGS),
        default=[name for name, setting in SETTINGS.items() if setting.backbone == EFFICIENTNET],
        metavar="NAME",
        help="default: all that need no further package",
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Measure. Raises: EigenlensError."""
    records = read_records(args.results) if args.results else []
    known = {record["method"] for record in records if record["metric"] == "mAP"}
    base: dict[tuple[str, int, str], NDArray[np.float64]] = {}
    wanted = []
    for name in args.settings:
        if all(_method(name, pooling, HEAD) in known for pooling in POOLINGS):
            print(f"{name:<22}is in {args.results} already", file=sys.stderr)
        else:
            wanted.append(name)
    for name in dict.fromkeys((BASE, *wanted)) if wanted else ():
        setting = SETTINGS[name]
        for pooling, fitted, measured in _features(setting, args):
            for head, (code, params) in _codes(fitted).items():
                method = _method(name, pooling, head)
                values: dict[tuple[str, str, int], float] = {}
                for length in LENGTHS:
                    for data, precisions in measured.precisions(code, length).items():
                        if name == BASE and pooling == "mean":
                            base[data, length, head] = precisions
                        gains = precisions - base[data, length, head]
                        values[data, "mAP", length] = float(precisions.mean())
                        of_gain = (float(gains.mean()), *paired_interval(gains))
                        for metric, value in zip(GAIN, of_gain, strict=True):
                            values[data, metric, length] = value
                if method not in known:
                    _report(method, values, {"fitted_to": args.train, "images": len(fitted)} | params, args.results)
    timed = {record["method"] for record in records if record["metric"] == SPEED}
    if missing := [name for name in args.settings if name not in timed]:
        _measure_speed(dict.fromkeys((BASE, *missing)), args)


GAIN = ("over 224 px", "over 224 px, low", "over 224 px, high")
"""The gain over the same head on the features of today, and its interval."""


def _method(name: str, pooling: str, head: str) -> str:
    return f"{name}, {pooling}: {head}"


def _features(setting: FrozenSetting, args: argparse.Namespace) -> Iterator[tuple[str, NDArray[np.float32], _Measured]]:
    """Compute, by pooling, roots of the features to fit to, (n, 2, d), and those that are measured on."""
    backbone = setting.open(args.work)
    train, validation, scenes = (open_source(spec) for spec in (args.train, args.validation, args.scenes))
    some = SubsampledSource(train, _TRAINING_PHOTOGRAPHS)
    seeing, fitted_in = backbone, setting.framing
    if setting.framing == "crops":
        seeing, fitted_in = open_over_crops(backbone, args.work), "centre"
    fitted = _cached(Framed(some, fitted_in), backbone, args.work, views=1)[0]
    parts = {}
    for part, source in (("validation", validation), ("hard", HardViews(validation)), ("scenes", scenes)):
        values, names = _cached(Framed(source, setting.framing), seeing, args.work, views=0)
        parts[part] = values[:, 0]
    queries = np.array([is_query(image.id) for image in scenes])
    width = backbone.code_length // len(POOLINGS)
    for number, pooling in enumerate(POOLINGS):
        of_pooling = slice(number * width, (number + 1) * width)
        roots = {part: power_normalise(values[:, of_pooling]) for part, values in parts.items()}
        measured = _Measured(roots["validation"], roots["hard"], roots["scenes"], np.array(names), queries)
        yield pooling, power_normalise(fitted[..., of_pooling]), measured


def _cached(source: Source, backbone: Encoder, work: Path, *, views: int) -> tuple[Features, tuple[str, ...]]:
    augmentation = AUGMENTATION if views else _PLAIN
    cached = cache_features(source, backbone, views=views, augmentation=augmentation, seed=0, directory=work)
    assert not cached.skipped, "rows are those of the source"
    return cached.values.astype(np.float32), cached.labels


def _codes(fitted: NDArray[np.float32]) -> dict[str, tuple[Callable[[Features], Features], dict[str, Any]]]:
    """Fit the two heads; returns what turns roots of features into codes, and the settings behind it."""
    head = fit_head(fitted, _HEAD_SETTINGS, code_length=max(LENGTHS))
    settings = asdict(_HEAD_SETTINGS) | {"views": fitted.shape[1] - 1}
    return {COMPONENTS: (principal_components(fitted[:, 0]), {}), HEAD: (head.codes, settings)}


def _report(
    method: str, values: Mapping[tuple[str, str, int], float], params: dict[str, Any], results: Path | None
) -> None:
    for data in (VALIDATION, SCENES):
        shown = "  ".join(f"{length}: {values[data, 'mAP', length]:.3f}" for length in LENGTHS)
        print(f"{method:<40}{data:<20}  {shown}", flush=True)
    if results:
        records = [
            make_record(
                Subject(bench="frozen", data=data, method=method, length=length, params=params), metric, round(value, 6)
            )
            for (data, metric, length), value in values.items()
        ]
        append_records(results, records)


def _measure_speed(names: Iterable[str], args: argparse.Namespace) -> None:
    """Record images a second of each setting, on one thread, by turns; three crops are three squares."""
    encoders = {(s.backbone, s.size): s.open(args.work, threads=1) for s in (SETTINGS[name] for name in names)}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in encoders}
    for _ in range(_ROUNDS):
        for key, encoder in encoders.items():
            pixels = np.zeros((_BATCH, encoder.image_size, encoder.image_size, 3), dtype=np.uint8)
            begin = time.perf_counter()
            encoder.encode(pixels)
            seconds[key].append(time.perf_counter() - begin)
    fastest = {key: min(times) for key, times in seconds.items()}
    records = []
    for name in names:
        setting = SETTINGS[name]
        of_base, own = (fastest[s.backbone, s.size] for s in (SETTINGS[BASE], setting))
        rate, share = _BATCH / own / setting.squares, of_base / own / setting.squares
        print(f"{name:<40}{rate:.0f} images/s, {share:.2f} of {BASE}")
        params = {"threads": 1, "batch": _BATCH, "rounds": _ROUNDS}
        subject = Subject(bench="frozen", data="any", method=name, params=params)
        records.append(make_record(subject, SPEED, round(rate, 2), "1/s"))
        records.append(make_record(subject, "speed over 224 px", round(share, 4)))
    if args.results:
        append_records(args.results, records)
