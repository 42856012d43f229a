"""Predictions before training: feasibility, speed-up and variants that are not worth training."""
