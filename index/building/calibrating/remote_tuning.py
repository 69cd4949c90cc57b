"""The tuning of a calibration whose searches are in another process."""

from __future__ import annotations

from dataclasses import replace

from eigenlens.index.tuning import Tuning

# A search takes a round trip, some tens of times as long as in memory: coarser steps and more time.
_STEPS, _TIMES_LONGER = 2, 3


def tuning_of_remote(tuning: Tuning) -> Tuning:
    """Return a tuning with coarser steps and more time for measurements."""
    return replace(
        tuning,
        effort_steps=min(_STEPS, tuning.effort_steps),
        calibration_s=_TIMES_LONGER * tuning.calibration_s,
    )
