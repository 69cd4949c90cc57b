"""Generations whose codes and indexes are in PostgreSQL, searched by its extension pgvector."""
