"""Devices that run models: transports, set-up, and the agent that measures."""
