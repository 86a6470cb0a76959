"""Training the bands of a split as one experiment."""
