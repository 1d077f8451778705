"""What a network costs: parameters and arithmetic, without data or a GPU."""
