"""What is known before anything is trained: what will fail, be partial, or gain no time."""
