"""Constraints that only biology knows, one file each; those on letters are in core."""
