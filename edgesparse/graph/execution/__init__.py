"""How a plan's graph is walked, and the processes that carry its stages out."""
