"""Drafts: pipeline and device files for a model and data that a user has."""
