"""Training: seconds a step and a run."""
