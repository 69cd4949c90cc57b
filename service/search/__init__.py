"""A search from its request to its results: choosing a plan, batching, searching a snapshot, paging."""
