"""Positive pairs: views of an image, near images, and how they are drawn."""
