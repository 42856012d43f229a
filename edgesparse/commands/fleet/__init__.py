"""Resources of a project: store, workers, cluster and connected devices."""
