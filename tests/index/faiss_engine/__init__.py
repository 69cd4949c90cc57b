"""Tests of the engine in memory, FAISS."""
