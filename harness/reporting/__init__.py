"""Tables and pictures of an experiment, from the records of its runs and nothing else."""
