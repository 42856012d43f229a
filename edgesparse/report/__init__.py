"""Reports on results: table, markdown, CSV, JSON, page, experiment trackers."""
