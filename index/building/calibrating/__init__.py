"""Calibration: measuring recall and latency of the plans of each index while a generation is built, or again later."""
