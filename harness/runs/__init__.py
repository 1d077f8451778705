"""What lies in runs' folders: whether it is what an experiment asks for, and what becomes of it where it is not."""
