"""What mixers share."""
