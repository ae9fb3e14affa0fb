"""From rows to actions, to requests, to rows."""
