"""Background jobs: kept in the gallery, run in a process of their own."""
