"""Changes of ready .tflite files without training: quantization, zeros, and what they lose."""
