"""Codes of the nodes of labelled graphs, beside others: `eigenlens bench nodes`, and its scale."""
