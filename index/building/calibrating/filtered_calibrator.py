"""Calibration under filters: recall and time of plans whose searches may return a share of the rows, drawn at random.

A server's index walks on under a filter until it has found enough, or scans: which plan is quick then, and what it
finds, does not follow from what was measured without one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from eigenlens.index.building.calibrating.calibrator import Calibrator
from eigenlens.index.building.calibrating.measured_grid import deepest_shortlist
from eigenlens.index.building.calibrating.pareto import grouped
from eigenlens.index.building.calibrating.recall_counting import plain_recalls, shortlist_recalls
from eigenlens.index.building.calibrating.timing import Latencies, smoothed
from eigenlens.index.filters.drawn import is_drawn
from eigenlens.index.live.prefix_index import AnyPrefixIndex, Rows
from eigenlens.index.plans.calibration import DEEP_COUNTS, Measured, is_plain
from eigenlens.index.plans.plan import IndexSpec, Plan

# Share of the time for searches that plans are measured in under each filter.
_DRAWN_TIME = 0.25
# Queries that recall is measured with under a filter.
_DRAWN_QUERIES = 1000
# So many times as long as an exact plan takes, another is no use under a filter, even if the times are not accurate.
_TOO_SLOW = 2


class FilteredCalibrator(Calibrator):
    """Measures as a Calibrator does, and then again under filters.

    calibrator.measure_again(open_index, sizes)
    calibrator.measure_drawn(open_index_under_filter, sizes, drawn_shares(count, scored_directly=20_000))
    """

    def measure_drawn(
        self,
        open_index: Callable[[IndexSpec, float], AnyPrefixIndex],
        sizes: Mapping[IndexSpec, int],
        shares: Sequence[float],
    ) -> None:
        """Measure the plans of the result again, under filters that leave a share of the rows, drawn at random.

        Those that take twice as long as an exact one are left out, and so are those that there is no time for: no
        search with a filter chooses them.

        Args:
            open_index: returns an index whose searches may return the rows of a share only.
            sizes: bytes of each index's file.
            shares: as from drawn_shares.
        """
        started = time.monotonic()
        spec_of = {m.plan: spec for spec, measured in self._measured.items() for m in measured}
        # Exact plans first, then those that were quick without a filter.
        kept = sorted(self._kept(sizes).values(), key=lambda m: (not m.exact, m.latency_ms["p50"]))
        for share in shares:
            budget_s = self._tuning.calibration_s * _DRAWN_TIME
            queries = min(_DRAWN_QUERIES, len(self._queries))
            _, exact = self._find_exact(queries, DEEP_COUNTS[-1], among=is_drawn(0, self.held_in, share))
            drawn: list[Measured] = []
            for (spec, _), group in grouped(kept, lambda m: (spec_of[m.plan], m.plan.effort)).items():
                index = open_index(spec, share)
                timed = [replace(m, latency_ms=self._timer.latencies(index, m.plan)) for m in group]
                limit_ms = _TOO_SLOW * min((m.latency_ms["p50"] for m in drawn if m.exact), default=math.inf)
                quick = [m for m in timed if m.latency_ms["p50"] < limit_ms]
                slowest_ms = max((m.latency_ms["p50"] for m in quick), default=0.0)
                needed_s = 0.0 if all(m.exact for m in quick) else slowest_ms / 1000 * len(exact)
                if needed_s <= budget_s:
                    drawn += self._with_recall(index, quick, exact)
                    budget_s -= needed_s
            times: dict[Plan, Latencies] = {}
            for of_index in grouped(drawn, lambda m: spec_of[m.plan]).values():
                times |= smoothed({m.plan: dict(m.latency_ms) for m in of_index})
            self._drawn[share] = tuple(replace(m, latency_ms=times[m.plan]) for m in drawn)
        self._spent_s += time.monotonic() - started

    def _with_recall(self, index: AnyPrefixIndex, measured: Sequence[Measured], exact: Rows) -> list[Measured]:
        """Measure the recall of plans of one effort by an index that may return some rows.

        Args:
            exact: those nearest to each query, (q, any number).
        """
        inexact = [m for m in measured if not m.exact]
        if not inexact:
            return list(measured)
        effort = inexact[0].plan.effort
        deepest = deepest_shortlist(index, effort, max(m.plan.shortlist or max(m.recall) for m in inexact))
        rows = index.search_entries(self._queries[: len(exact)], deepest, effort=effort)
        ranks, recalls = self._ranks(exact, rows), {m.plan: m.recall for m in measured}
        for m in inexact:
            shortlist, counts = min(m.plan.shortlist or deepest, deepest), list(m.recall)
            by_shortlist = {} if is_plain(m.plan) else shortlist_recalls(ranks, [shortlist], counts)
            recalls[m.plan] = by_shortlist[shortlist] if by_shortlist else plain_recalls(ranks, counts)
        return [replace(m, recall=recalls[m.plan]) for m in measured]
