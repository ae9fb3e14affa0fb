"""A teacher folder's rows in the formats of other trainers and scorers, each named for the program that reads it."""
