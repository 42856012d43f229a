"""Results of a run: the record, provenance, the release, model files."""
