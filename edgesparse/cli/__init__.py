"""Command line: parse, call the API, emit. Commands import heavy modules when they run."""
