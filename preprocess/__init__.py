"""Prepare: images to spectral bands to shards. Runs without torch."""
