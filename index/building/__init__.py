"""Builds of generations: filling, ordering, timing and calibrating prefix indexes."""
