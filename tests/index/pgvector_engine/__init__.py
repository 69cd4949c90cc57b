"""Tests of the engine in PostgreSQL."""
