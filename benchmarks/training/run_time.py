"""How long a training run took, read from the metrics that it wrote."""

from __future__ import annotations

import json
from pathlib import Path

from eigenlens.model.training.run import Run


def training_time(path: Path) -> dict[str, float]:
    """Minutes and images a second of the finished run at `path`, interruptions left out.

    Minutes count from the first pair to the last step: decoding the images comes before.

    Raises: TrainingError, if there is no run or it is not finished.
    """
    run = Run(path)
    run.require_finished()
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    return {"minutes": last["elapsed_s"] / 60, "images_per_s": last["images_per_s"]}
