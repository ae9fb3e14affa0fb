"""What a run leaves behind: its folder, its card, its export."""
