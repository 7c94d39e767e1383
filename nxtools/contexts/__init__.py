"""How much context a unit needs: what is left of its top activations when what stood before them is cut."""
