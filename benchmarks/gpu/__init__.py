"""What a GPU changes: training, export, FAISS and the service there, beside the same on the CPU."""
