"""Tests of plans and of the choice among them."""
