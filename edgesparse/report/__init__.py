"""Results as a table, markdown, CSV and JSON."""
