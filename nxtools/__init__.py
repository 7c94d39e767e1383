"""Explain what the units of a language model do."""
