"""What a Keras model is made of: its kernels, its channels, and its graph as one flat one."""
