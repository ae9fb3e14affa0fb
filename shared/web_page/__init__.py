"""What pages have alike: their head, colours, and the script that puts data into them as text."""
