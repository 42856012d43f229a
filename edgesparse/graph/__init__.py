"""From a plan to artifacts: the graph of stages, the store, and what carries stages out."""
