"""One encoder on the sample: agreement of neighbours with classes, and who is unlike everything."""
