"""Filters on metadata: parsed, evaluated over columns, and as sets of rows."""
