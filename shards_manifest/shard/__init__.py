"""Shards: their bytes, their index, and the one reader of their blocks."""
