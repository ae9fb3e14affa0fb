"""The `endpoint` teacher with --batch: the same questions and rows, by a provider's batch route."""
