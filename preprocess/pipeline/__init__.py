"""One image on its way: read, decoded, resized, transformed, quantised, gathered in blocks."""
