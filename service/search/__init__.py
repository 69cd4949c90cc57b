"""A search, from its request to its page of results: plan, batch, search of a snapshot, page."""
