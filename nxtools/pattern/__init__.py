"""The pattern language: parse, print, learn, execute."""
