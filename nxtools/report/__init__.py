"""What the scores of whole runs say: distributions, comparisons, tables, plots."""
