"""What changes samples on the device before the network sees them."""
