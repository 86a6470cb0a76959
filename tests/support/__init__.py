"""What tests share: makers of pictures, sources, splits, servers and clusters."""
