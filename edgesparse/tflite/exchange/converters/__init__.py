"""Converters, in Pythons of their own."""
