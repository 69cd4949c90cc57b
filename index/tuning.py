"""The thresholds of index and search that no setting exposes: measured once, and passed in where they are used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Thresholds and sizes, with the values that served best on the machines that were measured.

        small = replace(DEFAULT_TUNING, rows_per_run=300)
        codes = Codes(path, tuning=small)

    Attributes:
        rows_per_run: rows of codes that are read at once.
        max_mapped_bytes: of mapped codes that may be in memory while a generation is built.
        min_codes_for_ivf: below, a flat scan of a short prefix costs no more than the call itself.
        max_scanned_lists: above, a graph over the centroids finds the nearest lists sooner than a scan of them.
        spilled_share: share of the codes that are in a second list: those least like their centroid.
        min_codes_for_groups: below, codes lie in random order.
        row_groups: groups of near codes that lie together.
        max_rows_scored_directly: a selection of at most so many rows is scored row by row, exactly.
        max_dropped_share: if at most this share of the rows was removed, a search without a filter drops them from its
            results; a selection of all the others would make it several times slower.
        min_bound_recall: recall of the plan whose results tell an index that prunes how much has to be scored.
        max_gpu_results: results, and lists visited, of one search on a GPU.
        calibration_s: time of measuring for `calibration_codes` codes or fewer, and in proportion for more. Indexes
            with an effort to choose share it equally.
        calibration_codes: see `calibration_s`.
        calibration_queries: the most codes that are held out to measure recall with.
        effort_steps: measured efforts double in so many steps.
        shortlist_steps: measured lengths of shortlists double in so many steps.
        timed_queries: queries that time a plan, one at a time.
        min_recall_gain: efforts are raised until recall grows by less than this when they double.
        timed_scan_rows: rows of large codes that are scanned at once while a scan is timed.
    """

    rows_per_run: int = 65_536
    max_mapped_bytes: int = 1 << 30
    min_codes_for_ivf: int = 20_000
    max_scanned_lists: int = 1024
    spilled_share: float = 0.3
    min_codes_for_groups: int = 20_000
    row_groups: int = 4096
    max_rows_scored_directly: int = 10_000
    max_dropped_share: float = 0.01
    min_bound_recall: float = 0.9
    max_gpu_results: int = 2048
    calibration_s: float = 100.0
    calibration_codes: int = 1_000_000
    calibration_queries: int = 2000
    effort_steps: int = 5
    shortlist_steps: int = 10
    timed_queries: int = 150
    min_recall_gain: float = 2e-4
    timed_scan_rows: int = 1 << 20


DEFAULT_TUNING = Tuning()
