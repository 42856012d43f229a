"""Safe handling of text from outside, of files, temporary folders and child processes."""
