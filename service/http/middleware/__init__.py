"""ASGI middleware: access, limits, request ids."""
