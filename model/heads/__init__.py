"""Closed-form eigenmap heads on a frozen pretrained backbone: features once, then seconds of linear algebra."""
