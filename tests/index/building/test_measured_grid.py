"""The grid of a calibration."""

from __future__ import annotations

from eigenlens.index.building.calibrating.measured_grid import deep_shortlists, measured_shortlists


def test_longer_shortlists_are_measured_where_nearly_all_is_found() -> None:
    few, many = (measured_shortlists(10, recall=recall) for recall in (0.98, 0.99))
    for shortlists, longest in ((few, 300), (many, 600)):
        assert shortlists == sorted(set(shortlists))
        assert shortlists[-1] == longest
    assert set(few) < set(many)
    assert 240 in few, "the shortlist of a search that asks for none"
    assert set(range(10, 40)) < set(few), "a candidate more finds up to a hundredth more"


def test_shortlists_of_hundreds_of_results_go_on_from_there() -> None:
    deep = deep_shortlists(10)
    assert deep == sorted(set(deep))
    assert 300 < deep[0] < 400
    assert 4000 < deep[-1] < 4800
