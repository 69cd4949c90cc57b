"""Heads fitted to the very photographs that are searched, as `eigenlens up` does, beside one fitted to others."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.pca import Features, principal_components
from eigenlens.benchmarks.common.records import Subject, append_records, make_record, read_records
from eigenlens.benchmarks.heads.evaluate import LENGTHS, OWN, gain_over, is_query, scene_precisions
from eigenlens.benchmarks.heads.tables import CHOSEN, ELSEWHERE, OF_VIEWS, RIVAL, RIVALS
from eigenlens.model.commands.fit import AUGMENTATION
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.heads.choice import resolve_settings
from eigenlens.model.heads.features import cache_features, power_normalise
from eigenlens.model.heads.fit import HeadSettings, fit_head
from eigenlens.model.images.sources import Framed, Source, open_source
from eigenlens.model.runtime.encoder import Encoder

# Of `eigenlens up` for fewer than a thousand photographs; `eigenlens fit` chooses its own and draws four views.
_FOR_FEW, _VIEWS_FOR_FEW, _VIEWS = HeadSettings(ridge=1.0, diffusion_time=1.0), 2, 4


def measure_own(backbone: Encoder, args: argparse.Namespace) -> None:
    """Fit to the scenes without their names, measure how they find each other, print and record it.

    Raises: EigenlensError.
    """
    scenes, train = open_source(args.scenes), open_source(args.train)
    # As they are served; views are drawn of larger ones.
    served = cache_features(
        Framed(scenes, "centre"), backbone, views=0, augmentation=AugmentationConfig(), seed=0, directory=args.work
    )
    skipped = {id for id, _ in served.skipped}
    queries = np.array([is_query(image.id) for image in scenes if image.id not in skipped])
    names, plain = np.array(served.labels), served.values[:, 0].astype(np.float32)
    roots = power_normalise(plain)
    heads: dict[str, tuple[NDArray[np.float32], HeadSettings]] = {}
    for method, source in ((ELSEWHERE, train), (CHOSEN, scenes)):
        functions = _views(source, backbone, args, views=_VIEWS)
        heads[method] = functions, resolve_settings(functions, "views")
    heads[OF_VIEWS] = _views(scenes, backbone, args, views=_VIEWS_FOR_FEW), _FOR_FEW
    codes: dict[str, Features] = {
        "raw": plain,
        "pca": principal_components(plain)(plain),
        RIVAL: principal_components(roots)(roots),
    }
    for method, (functions, settings) in heads.items():
        codes[method] = fit_head(functions, settings, code_length=max(LENGTHS)).codes(roots)
    params = {"photographs": len(names), "queries": int(queries.sum()), "train": args.train}
    known = {r["method"] for r in (read_records(args.results) if args.results else ()) if r["data"] == OWN}
    for method, of_method in codes.items():
        if method in known:
            print(f"{method:<20}is in {args.results} already", file=sys.stderr)
            continue
        records, described = [], {}
        if method in heads:
            functions, settings = heads[method]
            described = {"settings": asdict(settings) | {"views": functions.shape[1] - 1}, "fitted_to": len(functions)}
        for prefix in LENGTHS:
            precisions = scene_precisions(of_method[:, :prefix], names, queries)
            values = {"mAP": float(precisions.mean())}
            for rival in (*RIVALS, ELSEWHERE) if method == OF_VIEWS else ():
                values |= gain_over(rival, precisions - scene_precisions(codes[rival][:, :prefix], names, queries))
            subject = Subject(bench="heads", data=OWN, method=method, length=prefix, params=params | described)
            records += [make_record(subject, metric, round(value, 6)) for metric, value in values.items()]
        print(f"{method:<20}" + "  ".join(f"{r['length']}: {r['value']:.3f}" for r in records if r["metric"] == "mAP"))
        if args.results:
            append_records(args.results, records)


def _views(source: Source, backbone: Encoder, args: argparse.Namespace, *, views: int) -> NDArray[np.float32]:
    """Return what a head is fitted to: photographs and views of them, the last of which is a hard one."""
    cached = cache_features(
        source, backbone, views=views, hard=True, augmentation=AUGMENTATION, seed=0, directory=args.work
    )
    return power_normalise(cached.values)
