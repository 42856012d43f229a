"""Training and fine-tuning: the recipe, Keras' arguments, and the fit."""
