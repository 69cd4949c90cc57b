"""A generation that is served while its gallery changes: what was added since, what was removed, and the rest."""
