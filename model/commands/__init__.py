"""Commands that need torch: train, export, fit."""
