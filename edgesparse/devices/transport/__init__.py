"""Ways to reach a device: the interface, and one file for each that implements it."""
