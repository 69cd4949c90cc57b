"""Tests of the engine in Qdrant."""
