"""The web page: its weight and speed, and pictures of it."""
