"""The links of a graph, mended: every row is led to."""

from __future__ import annotations

from typing import Any

import numpy as np

from eigenlens.index.faiss_engine.graph_walk import LINK_SLOTS, compiled_once


@compiled_once
def link_back(links: Any, least: Any) -> None:
    """Have every row that few links lead to be linked from rows near it, as far as these have slots left.

    A row that nothing leads to is never found, and pruning leaves one in a hundred with next to nothing. Its own links
    lead to the rows near it.

    Args:
        links: (count, LINK_SLOTS), each row's number of links before them; links are added in place.
        least: how many links lead to a row afterwards, where there is room.
    """
    arriving = np.zeros(links.shape[0], np.uint32)
    for row in range(links.shape[0]):
        for slot in range(1, 1 + np.intp(links[row, 0])):
            arriving[links[row, slot]] += 1
    for row in range(links.shape[0]):
        for slot in range(1, 1 + np.intp(links[row, 0])):
            near = np.intp(links[row, slot])
            taken = np.intp(links[near, 0])
            if arriving[row] >= least or taken + 1 == LINK_SLOTS:
                continue
            known = False
            for other in range(1, 1 + taken):
                known = known or np.intp(links[near, other]) == row
            if not known:
                links[near, 0], links[near, taken + 1] = taken + 1, row
                arriving[row] += 1
