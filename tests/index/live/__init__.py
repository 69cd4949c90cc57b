"""Tests of what changes between builds."""
