"""What is trained, and what is saved of it."""
