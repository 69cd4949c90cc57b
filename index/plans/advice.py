"""Advice to rebuild: what images that were added or removed since the build cost, and what a rebuild saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eigenlens.index.errors import TargetError
from eigenlens.index.plans.calibration import DEFAULT_TARGET

if TYPE_CHECKING:  # index.engine imports the plans, so an import at run time would be circular
    from eigenlens.index.engine import Engine

_K = 10
_BYTES_OF_COORDINATE = 2
# A rebuild pays where searches take longer than after it by this share of their plan's time, or where this share of the
# indexes is of removed images.
_MIN_SLOWDOWN, _MIN_REMOVED_SHARE = 0.25, 0.3


@dataclass(frozen=True)
class RebuildAdvice:
    """Why a rebuild would pay, and what it saves.

    Attributes:
        reason: in words.
        gain_ms: milliseconds that a default search of ten results would take less.
        gain_bytes: bytes of codes and indexes that it would free.
    """

    reason: str
    gain_ms: float
    gain_bytes: int


def advise_rebuild(engine: Engine) -> RebuildAdvice | None:
    """Return why a rebuild would pay; None if it would not."""
    built, added, removed = len(engine.keys), engine.added, engine.removed
    share = removed / max(1, built)
    plan_ms, added_ms = _plan_ms(engine, _K), engine.added_ms
    # To find ten of those that are left, a search reaches farther.
    removed_ms = 0.0 if removed == 0 else max(0.0, _plan_ms(engine, round(_K / max(1 - share, 1e-9))) - plan_ms)
    is_slow = added_ms + removed_ms >= _MIN_SLOWDOWN * plan_ms > 0 or (built == 0 and added_ms > 0)
    if not is_slow and share < _MIN_REMOVED_SHARE:
        return None
    reasons = []
    if added_ms >= _MIN_SLOWDOWN * plan_ms:
        reasons.append(
            f"{added:,} images were added since the build and are compared one by one: that takes {added_ms:.2g} ms "
            f"of each search, beside {plan_ms:.2g} ms for its plan"
        )
    if share >= _MIN_REMOVED_SHARE or removed_ms >= _MIN_SLOWDOWN * plan_ms:
        reasons.append(f"{removed:,} of {built:,} images in the indexes were removed since the build")
    per_image = _BYTES_OF_COORDINATE * engine.code_length
    per_image += sum(engine.describe(length).bytes for length in engine.lengths) // max(1, built)
    reason = "; ".join(reasons) or f"{added:,} images were added and {removed:,} removed since the build"
    return RebuildAdvice(reason, round(added_ms + removed_ms, 3), removed * per_image)


def _plan_ms(engine: Engine, k: int) -> float:
    """Return the median time of the default plan for k results; of the slowest one, if none meets the target."""
    calibration = engine.calibration
    try:
        return calibration.choose(k=k, target_recall=DEFAULT_TARGET).latency_ms["p50"]
    except TargetError:
        return max(measured.latency_ms["p50"] for measured in calibration.measured)
