"""What is asked of a device: jobs for its agent, the events it answers with, and probes."""
