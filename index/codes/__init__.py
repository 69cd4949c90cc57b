"""Codes on disk, their prefixes, and exact search over them."""
