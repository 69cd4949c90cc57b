"""Tests of the repository's own rules, and of artifacts."""
