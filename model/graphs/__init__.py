"""Graphs: reading them, fitting codes of their nodes in closed form, and publishing these as an encoder."""
