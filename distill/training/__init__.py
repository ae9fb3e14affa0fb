"""The training loop. It knows no model and no loss."""
