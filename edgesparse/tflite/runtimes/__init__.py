"""What runtimes make of a .tflite file: what they refuse, run and exploit, and why."""
