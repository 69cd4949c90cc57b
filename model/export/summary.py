"""The summary of a finished run: its spectrum with intervals, and how well a view finds its image by prefix length.

RUN/
  summary.json  the numbers
  summary.png   their picture, where matplotlib is installed
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from eigenlens import artifact
from eigenlens.install import install_line
from eigenlens.model.export.coder import code_network, estimate_spectrum, set_codes
from eigenlens.model.pairs.source import PairSource, rng_for
from eigenlens.model.training.run import Run

SUMMARY, PICTURE = "summary.json", "summary.png"
# Enough for a picture; export takes all images.
_IMAGES = 4096
_SEARCHED = 1024
_BATCH = 256


def summarise(run: Run, pairs: PairSource, *, device: torch.device) -> None:
    """Write the numbers and the picture of a finished run beside its metrics, from a sample of its images or nodes.

    Codes are those that export would publish, estimated on the sample: after the Rayleigh-Ritz step.

    Args:
        pairs: of what the run was trained on; the first of a pair is a view of the item itself.
    """
    _, network = run.load_network()
    config = run.config
    spectrum_settings = config.spectrum.model_copy(update={"max_images": min(config.spectrum.max_images, _IMAGES)})
    config = config.model_copy(update={"spectrum": spectrum_settings})
    coder = code_network(network, config).to(device).eval()
    spectrum = estimate_spectrum(coder, pairs, config)
    set_codes(coder, spectrum, diffusion_time=config.spectrum.diffusion_time)
    rows = np.random.default_rng(config.seed).permutation(len(pairs))[:_SEARCHED]
    images, views = [], []
    with torch.inference_mode():
        for number, start in enumerate(range(0, len(rows), _BATCH)):
            batch = np.sort(rows[start : start + _BATCH])
            images.append(coder(pairs.inputs(batch)).cpu())
            view, _ = pairs.draw(batch, rng_for(config.seed, "summary", number))
            views.append(coder(view).cpu())
    summary = {
        "eigenvalues": spectrum.to_records(coder.code.out_features),
        "a_view_finds_its_image": quality_by_length(torch.cat(images), torch.cat(views)),
        "images": min(len(pairs), _IMAGES),
        "searched": len(rows),
    }
    artifact.write_atomic(run.path / SUMMARY, json.dumps(summary, indent=1).encode())
    try:
        artifact.write_atomic(run.path / PICTURE, draw_summary(summary))
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("matplotlib"):
            raise
        print(f"{run.path / SUMMARY} has the numbers; a picture needs {install_line('bench')}", file=sys.stderr)


def quality_by_length(images: torch.Tensor, views: torch.Tensor) -> list[dict[str, float]]:
    """Measure how often the code of a view has that of its image as its nearest, and its mean reciprocal rank.

    Args:
        images, views: codes, (n, code_length); view i is of image i.

    Returns: a record for each prefix length 2, 4, 8, ... up to the code's.
    """
    records, length = [], 2
    while True:
        length = min(length, images.shape[1])
        cosines = F.normalize(views[:, :length], dim=1) @ F.normalize(images[:, :length], dim=1).T
        ranks = (cosines > cosines.diagonal()[:, None]).sum(1) + 1
        first, reciprocal = ((ranks == 1).double().mean(), ranks.double().reciprocal().mean())
        records.append({"length": length, "first": round(float(first), 4), "mrr": round(float(reciprocal), 4)})
        if length == images.shape[1]:
            return records
        length *= 2


def draw_summary(summary: Mapping[str, Any]) -> bytes:
    """Draw the picture of a summary as PNG. Raises: ModuleNotFoundError, where matplotlib is not installed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    values = np.array([entry["value"] for entry in summary["eigenvalues"]])
    margins = np.array([entry["margin_95"] or 0.0 for entry in summary["eigenvalues"]])
    coordinates = np.arange(1, len(values) + 1)
    left.fill_between(coordinates, values - margins, values + margins, alpha=0.3, linewidth=0)
    left.plot(coordinates, values)
    left.set(title="spectrum", xlabel="coordinate", ylabel="eigenvalue and its 95 % interval", ylim=(None, 1.02))
    quality: Sequence[Mapping[str, float]] = summary["a_view_finds_its_image"]
    lengths = [entry["length"] for entry in quality]
    for key, label, marker in (("first", "found first", "o"), ("mrr", "mean reciprocal rank", "s")):
        right.plot(lengths, [entry[key] for entry in quality], marker=marker, label=label)
    right.set_xscale("log", base=2)
    right.set_xticks(lengths, labels=[str(length) for length in lengths])
    title = f"a view finds its image among {summary['searched']}"
    right.set(title=title, xlabel="coordinates searched with", ylabel="share of views", ylim=(0, 1.02))
    right.legend()
    for panel in (left, right):
        panel.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    return picture.getvalue()
