"""Proteins, peptides and nucleic acids."""
