"""What the bio domain makes."""

from domains.tasks import Task

PEPTIDE = Task.load("bio", "peptide")

DEFAULT = PEPTIDE
