"""Programs that run on the device: one file each, valid Python 3.7, importing nothing of ours."""
