"""What a run leaves: results as they come, how its variants were made, a release, a page."""
