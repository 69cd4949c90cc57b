"""The links of a graph, mended: every row is led to."""

from __future__ import annotations

from typing import Any

import numpy as np

from eigenlens.index.faiss_engine.compiled import compiled_once
from eigenlens.index.faiss_engine.graph.walk import LINK_SLOTS


@compiled_once
def link_back(links: Any, levels: Any) -> None:
    """Have rows that few links lead to be linked from rows near them, as far as these have slots left.

    A row that nothing leads to is never found, and pruning leaves one in a hundred with next to nothing. Its own links
    lead to the rows near it. Those with the fewest come first, while there are slots: levels ascend.

    Args:
        links: (count, LINK_SLOTS), each row's number of links before them; links are added in place.
        levels: numbers of links, ascending, (n,): so many lead to every row before any row gets more, where there is
            room.
    """
    arriving = np.zeros(links.shape[0], np.uint32)
    for row in range(links.shape[0]):
        for slot in range(1, 1 + np.intp(links[row, 0])):
            arriving[links[row, slot]] += 1
    for level in levels:
        for row in range(links.shape[0]):
            if arriving[row] >= level:
                continue
            for slot in range(1, 1 + np.intp(links[row, 0])):
                near = np.intp(links[row, slot])
                taken = np.intp(links[near, 0])
                if arriving[row] >= level or taken + 1 == LINK_SLOTS:
                    continue
                known = False
                for other in range(1, 1 + taken):
                    known = known or np.intp(links[near, other]) == row
                if not known:
                    links[near, 0], links[near, taken + 1] = taken + 1, row
                    arriving[row] += 1
