"""What tests share: builders, oracles, a running service, a browser."""
