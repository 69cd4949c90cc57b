"""Generations whose codes and indexes are collections of Qdrant."""
