"""Train: shards to sub-networks to an ensemble."""
