"""Files that graphs come in, each format a module of its own that is imported when it is needed."""
