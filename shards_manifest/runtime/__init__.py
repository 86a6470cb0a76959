"""How the programs run: their ends, and where their tasks are done."""

BACKENDS = ("loky", "dask", "ray", "spark")  # of executors.py; here so that a command line shows them without joblib
