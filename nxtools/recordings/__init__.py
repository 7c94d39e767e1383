"""What recordings hold, merged by layer, and the excerpts that a unit line shows of it. No torch here."""
