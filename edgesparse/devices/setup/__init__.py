"""Set-up of devices: connection, runtimes, releases, clean-up, and a check-up."""
