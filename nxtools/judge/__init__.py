"""What an assistant can tell of an explanation short of numbers: which excerpts it fits, which tokens."""
