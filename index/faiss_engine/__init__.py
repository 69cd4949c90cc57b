"""The search engine over FAISS: generations of prefix indexes and what was added since."""
