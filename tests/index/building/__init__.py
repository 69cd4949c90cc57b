"""Tests of building, calibration included."""
