"""Structure of Keras models: kernels, channels and their dependencies, and flat graphs."""
