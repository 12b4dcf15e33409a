"""Members as a user would write them outside the repository: a good one of each kind, and one with a fault."""

# Independent sites: everything is masked at t = 0 and drawn in one step.
PROCESS = """
import torch
from dataclasses import replace
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes.base import Likelihood, Process, TokenLoss
from core.processes.transitions.substitute import Substitute
from core.registry import Paper


class OneShot(Process):
    paper = Paper("ours", "Independent sites & uniform lengths")
    likelihood_kind = "exact"
    attends = MaskSpec("full")

    def __init__(self, vocabulary, limit=20):
        super().__init__(vocabulary)
        self.limit = limit
        self.register_buffer("longest", torch.tensor(1))

    @property
    def outputs(self):
        return self.vocabulary.size

    def fit(self, lengths, condition=None):
        self.longest.fill_(int(lengths.max()))

    def corrupt(self, batch, time, noise):
        hidden = torch.full_like(batch.tokens, self.vocabulary.mask)
        shown = torch.zeros_like(batch.layout.valid) if batch.fixed is None else batch.fixed
        tokens = torch.where(batch.layout.valid & ~shown, hidden, batch.tokens)
        return replace(batch, tokens=tokens, targets=batch.tokens)

    def _costs(self, network, batch, noise):
        valid = batch.layout.valid
        law = network(self.corrupt(batch, None, noise), None).log_softmax(-1)
        cost = -law.gather(-1, torch.where(valid, batch.tokens, 0)[..., None])[..., 0]
        return torch.where(valid, cost, 0.0), valid

    def loss(self, network, batch, noise):
        cost, valid = self._costs(network, batch, noise)
        return TokenLoss(cost, valid.to(cost), valid.sum())

    def likelihood(self, network, batch, noise, points):
        cost, _ = self._costs(network, batch, noise)
        lengths = batch.layout.lengths
        nll = torch.zeros(len(lengths), dtype=torch.float64)
        nll.index_add_(0, batch.layout.owners.clamp_min(0).flatten(), cost.double().flatten())
        nll = nll + self.longest.double().log()
        return Likelihood(nll * SCALE, "exact", torch.zeros_like(nll), lengths + 1)

    def prior(self, lengths, noise):
        layout = Layout.padded(lengths, int(lengths.max()), self.attends)
        tokens = torch.where(layout.valid, self.vocabulary.mask, self.vocabulary.pad)
        return SequenceBatch(tokens, layout)

    def grid(self, steps):
        return [(0.0, 1.0)]

    def lengths(self, noise, allowed, condition=None):
        fitting = torch.tensor([n for n in allowed if n <= int(self.longest)])
        return fitting[(noise.uniform(1, Purpose.LENGTH)[:, 0] * len(fitting)).long()]

    def transition(self, network, batch, t, s):
        free = batch.layout.valid & (batch.tokens == self.vocabulary.mask)
        settled = torch.where(free | ~batch.layout.valid, -1, batch.tokens)
        law = lambda rows: network(batch.select(rows), None).log_softmax(-1)
        return Substitute(law, free.double(), settled)


SCALE = 1.0
"""
MIXER = """
import torch
from torch import nn
from core.backbones.mixers.base import Capabilities, SequenceMixer
from core.registry import Paper


class Mean(SequenceMixer):
    paper = Paper("ours", "Mean of the sequence")
    capabilities = Capabilities(masks=frozenset({"full"}), state="none", cost=1.0)

    def __init__(self, width, mask, gain=1.0):
        super().__init__(width, mask)
        self.gain = gain
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, h, layout, state=None, keep="none"):
        inside = layout.valid[..., None]
        h = h.masked_fill(~inside, 0)
        owners = layout.owners.clamp_min(0).flatten()
        sums = h.new_zeros(layout.count, h.shape[-1]).index_add(0, owners, h.flatten(0, 1))
        mean = sums / layout.lengths.clamp_min(1)[:, None] WHOLE
        y = self.out(h + self.gain * mean[owners].reshape(h.shape))
        return y.masked_fill(~inside, 0), None

    def init_state(self, n):
        raise ValueError("a mean cannot decode")
"""
OBJECTIVE = """
import numpy as np
from core.guidance.objectives.base import Objective
from core.registry import Paper


class Lysines(Objective):
    paper = Paper("ours", "Share of lysine")
    direction, unit, source = "max", "share", "counting"

    def __init__(self, letter="K"):
        self.letter = letter

    def score(self, sequences):
        return np.array([s.count(self.letter) / len(s) for s in sequences], dtype=float) SHIFT
"""
CONSTRAINT = """
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper


class _First(Automaton):
    def __init__(self, token):
        self.token = token

    def start(self):
        return 0

    def advance(self, state, position, token):
        return 0 if position or token == self.token else None

    def accepts(self, state):
        return True


class Starts(Constraint):
    paper = Paper("ours", "A given first letter")

    def __init__(self, letter="M"):
        self.letter = letter

    @property
    def name(self):
        return f"starts:{self.letter}"

    def compile(self, tokenizer, length):
        return _First(list(tokenizer.letters).index(self.letter))

    def check(self, value):
        return value.CHECK(self.letter)
"""
FUSION = """
import torch
from core.backbones.memories.base import Fusion
from core.registry import Paper


class Together(Fusion):
    paper = Paper("ours", "What all memories say, added")

    def _fuse(self, h, positions, sources):
        said = [reader.out(reader(h, positions, source)[0]) for reader, source in self._pairs(sources)]
        return torch.stack(said).SUM(0)
"""
SAMPLER = """
import torch
from core.data.noise import Noise
from core.decoding.base import Sampler, Samples
from core.errors import UserError
from core.processes.autoregressive import Autoregressive
from domains.bio.objectives.gc_content import GcContent
from core.registry import Paper


class RowByRow(Sampler):
    paper = Paper("ours", "One sequence after the other")

    def suits(self, process):
        if not isinstance(process, Autoregressive):
            raise UserError("RowByRow needs an autoregressive checkpoint")

    def sample(self, process, network, start, noise, constraints=None):
        rows = []
        for row in range(start.layout.count):
            index = torch.tensor([row])
            batch, own, step, done = start.select(index), NOISE, 0, False
            running = None if constraints is None else constraints.start(1)
            while not done:
                law = process.transition(network, batch, float(step), step + 1.0)
                move = law.draw(batch, own.at(step), constraints, running)
                batch, running, step, done = move.batch, move.running, step + 1, bool(move.done)
            rows.append(batch.tokens[0, : int(batch.layout.lengths)])
        return Samples(tuple(rows), 0, 0)
"""
GUIDE = """
import torch
from core.guidance.guides.base import Guide
from core.processes.transitions.append import Append
from core.processes.transitions.drift import Drift
from core.registry import Paper


class Late(Guide):
    paper = Paper("ours", "Letters late in the alphabet, and numbers far up")
    supports = frozenset({Append, Drift})

    def reweight(self, transition, batch, t, s, context):
        strength = STRENGTH
        if isinstance(transition, Append):
            late = torch.linspace(0, 3, transition.logits.shape[1]).to(transition.logits)
            return transition.tilted(strength * late.expand_as(transition.logits))
        return transition.tilted(strength * transition.candidates(batch, context.noise)[:, :, 0, 0])
"""
GOOD = {
    "process": ("OneShot", PROCESS),
    "mixer": ("Mean", MIXER.replace("WHOLE", "")),
    "objective": ("Lysines", OBJECTIVE.replace("SHIFT", "")),
    "constraint": ("Starts", CONSTRAINT.replace("CHECK", "startswith")),
    "fusion": ("Together", FUSION.replace("SUM", "sum")),
    "sampler": ("RowByRow", SAMPLER.replace("NOISE", "noise.select(index)")),
    "guide": ("Late", GUIDE.replace("STRENGTH", "self.strength")),
}
# A fault in each, and the law that must find it.
BAD = {
    "process": (PROCESS.replace("SCALE = 1.0", "SCALE = 0.5"), "sum to 1 at most"),
    "mixer": (MIXER.replace("WHOLE", "+ h.flatten(0, 1).mean(0)"), "a sequence mixes alone"),
    "objective": (OBJECTIVE.replace("SHIFT", "- np.mean([len(s) for s in sequences])"), "does not depend on the batch"),
    "constraint": (CONSTRAINT.replace("CHECK", "endswith"), "passes check"),
    "fusion": (FUSION.replace("SUM", "mean"), "an empty memory is as if built without it"),
    "sampler": (SAMPLER.replace("NOISE", "Noise.start(0, index)"), "the same alone and in a batch"),
    "guide": (GUIDE.replace("STRENGTH", "0.5 + self.strength"), "strength 0 is the unguided law"),
}
