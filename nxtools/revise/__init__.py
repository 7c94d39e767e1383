"""Explanations that were challenged: counterexamples, and what becomes of an explanation under them."""
