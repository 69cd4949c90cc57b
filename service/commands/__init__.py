"""The service's commands: build, serve, restore, and those that ask a running service."""
