"""`eigenlens bench heads`: fit what is not on record, measure, print a line for each method."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.pca import Features, principal_components
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.heads.evaluate import (
    KIND,
    LENGTHS,
    PLANTED,
    POOLED,
    SCENES,
    EvaluationSet,
    gain_over,
    is_query,
)
from eigenlens.benchmarks.heads.own import measure_own
from eigenlens.benchmarks.heads.tables import OF_VIEWS, QUALITY, RIVAL, RIVALS
from eigenlens.model.commands.fit import AUGMENTATION
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.heads.choice import resolve_settings
from eigenlens.model.heads.features import cache_features, power_normalise
from eigenlens.model.heads.fit import fit_head
from eigenlens.model.heads.frozen import BackboneChoice, open_backbone, open_over_crops
from eigenlens.model.images.hard_views import HardViews
from eigenlens.model.images.preprocessing import FRAMINGS
from eigenlens.model.images.sources import Framed, open_source
from eigenlens.model.runtime.encoder import Encoder

_VIEWS = 4
_PLAIN = AugmentationConfig()
HEADS = (OF_VIEWS, "neighbours", "both")
METHODS = (*RIVALS, "raw", *HEADS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--train", metavar="SOURCE", required=True, help="photographs in class folders, to fit to")
    parser.add_argument("--test", metavar="SOURCE", required=True, help="photographs in class folders, to search with")
    parser.add_argument("--scenes", metavar="SOURCE", required=True, help="Holidays: scene/number.jpg, ..00 the query")
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where features are kept")
    parser.add_argument(
        "--framing", choices=tuple(FRAMINGS), default="centre", help="as of `eigenlens fit` (default: %(default)s)"
    )
    parser.add_argument(
        "--encoder", metavar="ENCODER", type=Path, help="measure this encoder as well, also against the head of views"
    )
    parser.add_argument("--name", default="photos", help="of that encoder in the records (default: %(default)s)")
    parser.add_argument(
        "--own",
        action="store_true",
        help="measure the scenes only, by what is fitted to the scenes themselves, as `eigenlens up` does",
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="add the records to FILE; what is there is skipped"
    )


def run(args: argparse.Namespace) -> None:
    """Fit and measure. Raises: EigenlensError."""
    backbone = open_backbone(BackboneChoice(), args.work)
    if args.own:
        measure_own(backbone, args)
        return
    seeing = open_over_crops(backbone, args.work) if args.framing == "crops" else backbone
    features = _evaluation_set(seeing, args, framing=args.framing)
    known = {
        record["method"] for record in (read_records(args.results) if args.results else ()) if record["data"] == POOLED
    }
    framed = "" if args.framing == "centre" else f", {args.framing}"
    rivals = {name: features.mapped(_code_function(name, features.gallery, None)[0]) for name in RIVALS}
    for method in (*METHODS, *([args.name] if args.encoder else [])):
        name = method if method == args.name else method + framed
        if name in known:
            print(f"{name:<20}is in {args.results} already", file=sys.stderr)
            continue
        params: dict[str, Any] = {"fitted_to": args.train, "gallery": len(features.gallery)}
        params |= {"queries": len(features.queries), "scenes": int(features.scene_queries.sum())}
        others = {rival: of_rival for rival, of_rival in rivals.items() if rival != method}
        if method == args.name:
            encoder = Encoder(args.encoder)
            framings = {preprocessing: framing for framing, preprocessing in FRAMINGS.items()}
            codes = _evaluation_set(encoder, args, framing=framings.get(encoder.preprocessing, "centre"))
            params |= {"fitted_to": encoder.artifact.properties["images"], "encoder": encoder.id}
            params |= {"settings": encoder.artifact.properties["training"]}
            others[OF_VIEWS] = features.mapped(
                _code_function(OF_VIEWS, features.gallery, _features_to_fit(OF_VIEWS, features, backbone, args))[0]
            )
        else:
            drawn = _features_to_fit(method, features, backbone, args) if method in HEADS else None
            code, settings = _code_function(method, features.gallery, drawn)
            codes, params = features.mapped(code), params | settings
        _measure(name, codes, params, args.results, rivals=others)


def _features_to_fit(
    method: str, features: EvaluationSet, backbone: Encoder, args: argparse.Namespace
) -> NDArray[np.float32]:
    """Return what `eigenlens fit` fits such a head to, (n, 1 + views, d): photographs and, for some, views of them."""
    if method == "neighbours" and args.framing != "crops":
        return power_normalise(features.gallery[:, None])
    source = Framed(open_source(args.train), "centre" if args.framing == "crops" else args.framing)
    views = 0 if method == "neighbours" else _VIEWS
    cached = cache_features(
        source, backbone, views=views, hard=True, augmentation=AUGMENTATION, seed=0, directory=args.work
    )
    return power_normalise(cached.values)


def _code_function(
    method: str, gallery: Features, drawn: NDArray[np.float32] | None
) -> tuple[Callable[[Features], Features], dict[str, Any]]:
    """Fit a method; returns what turns features into its codes, and the settings behind it."""
    if method == "raw":
        return lambda features: features, {}
    if method == "pca":
        return principal_components(gallery), {}
    if method == RIVAL:
        components = principal_components(power_normalise(gallery))
        return lambda features: components(power_normalise(features)), {}
    assert drawn is not None
    settings = resolve_settings(drawn, method)  # type: ignore[arg-type]  # one of HEADS
    head = fit_head(drawn, settings, code_length=drawn.shape[2])
    described = asdict(settings) | {"views": drawn.shape[1] - 1, "hard_views": min(drawn.shape[1] - 1, 1)}
    return lambda features: head.codes(power_normalise(features)), {"settings": described}


def _evaluation_set(encoder: Encoder, args: argparse.Namespace, *, framing: str) -> EvaluationSet:
    """Encode all photographs that are measured on; computed once for each encoder."""
    values, labels, ids = [], [], []
    train, test, scenes = (open_source(spec) for spec in (args.train, args.test, args.scenes))
    for part in (train, test, scenes, HardViews(test)):
        source = Framed(part, framing)
        cached = cache_features(source, encoder, views=0, augmentation=_PLAIN, seed=0, directory=args.work)
        skipped = {id for id, _ in cached.skipped}
        values.append(cached.values[:, 0].astype(np.float32))
        labels.append(np.array(cached.labels))
        ids.append([image.id for image in source if image.id not in skipped])
    scene_queries = np.array([is_query(id) for id in ids[2]])
    return EvaluationSet(values[0], labels[0], values[1], labels[1], values[3], values[2], labels[2], scene_queries)


def _measure(
    method: str,
    codes: EvaluationSet,
    params: dict[str, Any],
    results: Path | None,
    *,
    rivals: Mapping[str, EvaluationSet],
) -> None:
    full = codes.gallery.shape[1]
    records = []
    for length in (*(length for length in LENGTHS if length < full), full):
        values = dict(codes.quality(length))
        precisions = codes.precisions(length)
        for name, rival in rivals.items():
            for data, of_rival in rival.precisions(length).items():
                gains = gain_over(name, precisions[data] - of_rival)
                values |= {(data, metric): value for metric, value in gains.items()}
        for (data, metric), value in values.items():
            subject = Subject(bench="heads", data=data, method=method, length=length, params=params)
            records.append(make_record(subject, metric, round(value, 6)))
    for data in (KIND, SCENES, PLANTED, POOLED):
        shown = [f"{r['length']}: {r['value']:.3f}" for r in records if r["data"] == data and r["metric"] in QUALITY]
        print(f"{method:<20}{data:<20}  " + "  ".join(shown), flush=True)
    if results:
        append_records(results, records)
