"""Other frameworks: each module here needs one that is not required otherwise."""
