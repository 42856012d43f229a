"""One file per task: its loss and metrics for training, and how outputs are judged."""
