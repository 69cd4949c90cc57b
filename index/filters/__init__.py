"""Filters on metadata: parsing, evaluation over columns, and selections of rows."""
