"""Python code and files that a YAML file names: found, checked and digested without being run."""
