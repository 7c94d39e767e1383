"""One file per nx-* command; joins the other rooms."""
