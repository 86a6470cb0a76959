"""A split: planned, written row by row, committed."""
