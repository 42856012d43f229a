"""Results of a run: the record, training details, the release, model files."""
