"""What is put on a device: runtimes, releases; and a check-up of what it lacks."""
