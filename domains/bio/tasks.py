"""What the bio domain makes; each task is `configs/task/bio/<name>.yaml`.

`domains/tasks.py` says what a task holds, `pretrained/<name>/card.md` what its bundled weights are worth.
"""

from domains.tasks import Task

# Peptides of 5 to 99 natural residues, of any length; two bundled models.
PEPTIDE = Task.load("bio", "peptide")
# Promoters and enhancers of up to 300 bases, of a class that is asked for; train a model first.
REGULATORY_DNA = Task.load("bio", "regulatory_dna")

DEFAULT = PEPTIDE
