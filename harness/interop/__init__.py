"""Integration with other frameworks; each module needs one that is otherwise not required."""
