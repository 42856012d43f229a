"""Properties of runtimes: the storage that they reject, run and exploit, and why."""
