"""The scheduler of a plan's stages, and the processes and clusters that run them."""
