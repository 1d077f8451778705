"""The contents of runs' folders: are they what an experiment asks for, and what happens to them if they are not."""
