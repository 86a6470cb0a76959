"""Image classifiers as ensembles of small spectral sub-networks."""
