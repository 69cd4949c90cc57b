"""Training on the nodes of a graph: inputs, positive pairs, what a run keeps, and its encoder."""
