"""Predicted activations from an explanation, and the baselines."""
