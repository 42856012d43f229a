"""What every stage is, and what stages leave for one another."""
