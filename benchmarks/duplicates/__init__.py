"""Duplicates of a whole gallery: which are found, and what finding them costs."""
