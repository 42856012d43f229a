"""The types of stages, and the artifacts that stages exchange."""
