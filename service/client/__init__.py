"""The typed client, asynchronous and blocking."""
