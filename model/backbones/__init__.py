"""Networks from pixels to features."""
