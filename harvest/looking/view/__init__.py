"""A page to look at a harvest's rows: one file that asks for nothing else, or a server on loopback."""
