"""Search plans, their calibration, and the choice of a plan for a search."""
