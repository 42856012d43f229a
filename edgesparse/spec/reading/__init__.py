"""Reading YAML files into checked data, with all mistakes reported at once."""
