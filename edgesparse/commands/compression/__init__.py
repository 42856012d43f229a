"""The compress command: a trained model made smaller and faster, without its training."""
