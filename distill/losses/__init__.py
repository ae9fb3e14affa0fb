"""The training objective: one file a term, each with its equation and its source; `objective` puts them together.

Shapes, everywhere: n rows in a batch, c outputs of a head (1 for regression), d dimensions of the joint space.
"paper" is arXiv:2603.10877v1, "code" the earlier state of the method that its authors released.
"""
