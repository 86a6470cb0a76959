"""Fusing the outputs of finished runs."""
