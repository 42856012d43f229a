"""A search over variants: Optuna chooses, devices measure."""
