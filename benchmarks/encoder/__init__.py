"""Quality of one encoder on the sample, by class."""
