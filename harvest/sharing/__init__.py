"""Giving a harvest to others, and taking theirs: data sets of the Hugging Face hub."""
