"""Which teacher to buy: several are asked about the same rows, and held against known labels and each other."""
