"""Jobs for the agent on a device, the events that it sends, and probes of runtimes."""
