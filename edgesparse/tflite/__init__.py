"""Everything about .tflite bytes."""
