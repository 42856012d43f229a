"""The graph of stages, the store of artifacts, and the execution of stages."""
