"""Search: recall, latency, memory and build time, against other libraries."""
