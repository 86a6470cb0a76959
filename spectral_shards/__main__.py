"""python -m spectral_shards: the program `spectral`, where its script is not on the path."""

from .cli import main

main()
