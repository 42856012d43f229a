"""From a YAML file to checked data, with every mistake found at once."""
