"""Where models run: transports, and the agent that measures there."""
