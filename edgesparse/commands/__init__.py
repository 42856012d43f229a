"""What commands do, from start to end, and what they share."""
