"""spectral report: a split, its runs and their ensemble as one page."""
