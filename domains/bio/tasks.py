"""What the bio domain makes; each task is `configs/task/bio/<name>.yaml`.

`domains/tasks.py` says what a task holds, `pretrained/<name>/card.md` what its bundled weights are worth.
"""

from domains.tasks import Task

PEPTIDE = Task.load("bio", "peptide")
REGULATORY_DNA = Task.load("bio", "regulatory_dna")

DEFAULT = PEPTIDE
