"""The training objective: each term with its equation and its source; `objective` puts them together.

registry     the losses that can be L_m by name, and those of other installed packages; without torch
armada       ARMADA's own terms, paper and code side by side
geometry     comparisons of two spaces that no rotation changes
contrastive  each row finds its own teacher among the batch's
label_kl     the divergence from the teacher's own label distribution
task         the labels' own term

Shapes, everywhere: n rows in a batch, c outputs of a head (1 for regression), d dimensions of the joint space.
"paper" is arXiv:2603.10877v1, "code" the earlier state of the method that its authors released.
"""
