"""Recipes that chain the two stages, and the runner behind the `pipeline` command."""
