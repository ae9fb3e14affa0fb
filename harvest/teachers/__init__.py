"""Teachers behind one protocol (see `base`): each is one file or folder, and the engine does not know which it drives."""
