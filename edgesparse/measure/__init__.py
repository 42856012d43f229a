"""Measurement: jobs, rows, statistics, evaluation, gates, selection and comparison of runs."""
