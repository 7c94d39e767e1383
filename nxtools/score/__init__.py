"""How well predictions match."""
