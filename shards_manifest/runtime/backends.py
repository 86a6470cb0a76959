"""The backends that tasks can run on, by name. It imports nothing, as --help shows it."""

BACKENDS = ("loky", "dask", "ray", "spark")
