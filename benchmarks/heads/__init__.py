"""Heads on frozen features, against PCA and the raw features."""
