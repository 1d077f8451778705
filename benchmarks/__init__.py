"""What measures the project itself, as ratios in one run on one machine."""
