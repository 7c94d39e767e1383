"""The model under study: loading, sites, text, excerpts, the recorder. Needs torch only where it runs."""
