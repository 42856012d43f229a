"""Python code and files that a YAML file names: located, checked and digested without running."""
