"""Inference runtimes: images a second and agreement of codes."""
