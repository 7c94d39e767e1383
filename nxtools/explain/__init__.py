"""Words for what a unit does."""
