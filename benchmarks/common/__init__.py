"""What several benchmarks share: records, arguments, measures of retrieval, a running service."""
