"""The closed-form Rayleigh-Ritz step: moments, eigenvalues, lengths."""
