"""Looking at a finished split: what it holds, and whether it is right."""
