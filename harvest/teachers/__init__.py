"""Teachers behind one protocol (see `base`), a file or folder each: the engine does not know which it drives."""
