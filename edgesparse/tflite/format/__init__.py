"""The .tflite file: read, described, and written with sparse weights."""
