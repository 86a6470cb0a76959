"""Streaming: shards to sub-network to ensemble."""
