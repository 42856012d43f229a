"""Training and fine-tuning: how (a recipe), with what (Keras' parts), and doing it."""
