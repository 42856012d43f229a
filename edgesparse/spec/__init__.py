"""YAML files as checked data. The ground floor: imports nothing of ours and nothing heavy."""
