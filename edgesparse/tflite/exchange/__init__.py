"""Models of other frameworks: PyTorch's .pt2 and ONNX files, converted to float .tflite files."""
