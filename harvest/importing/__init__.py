"""Answers that somebody has already, made by other tools, as a teacher folder. Asks nobody."""
