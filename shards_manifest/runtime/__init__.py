"""How the programs run: their ends, and where their tasks are done."""
