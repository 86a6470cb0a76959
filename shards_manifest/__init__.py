"""The contract on disk between preparing and training (docs/format.md)."""
