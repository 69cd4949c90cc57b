"""A VA-file: exact search by bounds of the cosine, from half of the coordinates in 8 bits."""
