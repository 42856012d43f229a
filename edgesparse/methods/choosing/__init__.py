"""How sparse each layer becomes, where a pipeline leaves it to the program."""
