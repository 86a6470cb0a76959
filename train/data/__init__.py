"""Batches from shards: their order, their reading, their cache."""
