"""Did the teacher help, or was it regularisation? Variants over seeds and label counts, paired tests, one report."""
