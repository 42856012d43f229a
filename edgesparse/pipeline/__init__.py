"""From a pipeline file to results: plan, store, stages, execution."""
