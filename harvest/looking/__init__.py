"""What is kept, shown: asks nobody."""
