"""The transform between images and spectral bands."""
