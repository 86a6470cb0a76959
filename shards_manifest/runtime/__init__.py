"""How the programs run: how commands end, and where tasks are done."""
