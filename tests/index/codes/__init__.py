"""Tests of codes and of what is computed from them."""
