"""What to measure, and what the measurements say."""
