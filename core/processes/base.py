"""The contract of every generative process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from core.backbones.state import State
from core.data.conditions import Conditions
from core.data.mask import MaskSpec
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.processes.transitions.base import Transition
from core.registry import Paper
from core.tokenizers.base import Vocabulary

LikelihoodKind = Literal["exact", "bound", "estimate"]


@runtime_checkable
class Network(Protocol):
    """What a process asks of a model: logits for every site.

    `tokens` are input ids laid out as `batch.layout`; `time` is None for a network that does
    not see time. Fields, where a batch has them, are flattened into sites `S = L x F`; numbers
    have one site a place, and the answer there is one value for each channel.
    """

    def __call__(self, batch: SequenceBatch, time: Float[Tensor, "B S"] | None) -> Float[Tensor, "B S V"]: ...


@runtime_checkable
class RecurrentNetwork(Network, Protocol):
    """A network that also reads token by token."""

    def read(self, batch: SequenceBatch) -> tuple[Float[Tensor, "N V"], State]:
        """Read padded sequences of at least one token: the logits behind the last, and the State there.

        The State keeps what else they were read with, such as their condition.
        """
        ...

    def step(self, tokens: Int[Tensor, " N"], state: State) -> tuple[Float[Tensor, "N V"], State]:
        """Read one more token of each sequence."""
        ...


@runtime_checkable
class Reversible(Protocol):
    """A process whose path can be walked back: what a corrector needs."""

    def renoise(
        self, batch: SequenceBatch, t: float, s: float, strength: float, noise: Noise
    ) -> tuple[SequenceBatch, float]:
        """`batch`, which stands at t, as the path showed it earlier, and that time.

        How far back goes with `strength` and with the step from t to s. The law of the path is kept
        exactly: what stood at t with its law stands at the earlier time with its law there.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenLoss:
    """A loss before any reduction: `values` and `weights` per site, `count` tokens it stands for."""

    values: Float[Tensor, "B S"]
    weights: Float[Tensor, "B S"]
    count: Int[Tensor, ""]

    def mean(self) -> Float[Tensor, ""]:
        """Weighted sum over the number of tokens."""
        return (self.values * self.weights).sum() / self.count


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Negative log-likelihood of each sequence in nats, its length and end included.

    `kind` says what it is: the exact value, a bound on it, or a numerical estimate of it. `error` is
    the standard error of a bound's quadrature or of an estimate, 0 for an exact value. `tokens` counts
    the end token too. Numbers have a density, in the units of the data.
    """

    nll: Float[Tensor, " N"]
    kind: LikelihoodKind
    error: Float[Tensor, " N"]
    tokens: Int[Tensor, " N"]

    @property
    def label(self) -> str:
        """How reports call it."""
        return {"exact": "NLL (exact)", "bound": "ELBO (bound)", "estimate": "NLL (estimate)"}[self.kind]


class Process(nn.Module, ABC):
    """What is corrupted how, the loss, the exact step and the likelihood of one generative method.

    Time runs from noise at t = 0 to data at t = 1, and may differ for each site. Sites that
    the batch calls `fixed` never change. Everything random comes from a `Noise`, so the same
    noise gives the same result whatever the batch. `attends` is the mask its network needs,
    `timed` whether the network must see the time, `limit` the longest sequence it covers, `writes` what
    its sequences hold: ids of a vocabulary, or numbers `[B, L, C]`, which have an empty one,
    `fills_gaps` whether it may start from fixed tokens with gaps of unknown length between them,
    `sampler` the key of the sampler that draws from it unless another is named.

    Every registered member is held to the laws of `pipelines/check`; what enumeration proves beyond them stands in
    `tests/laws/`, one file a process or law, listed in `docs/laws.md`.
    """

    paper: ClassVar[Paper]
    likelihood_kind: ClassVar[LikelihoodKind]
    attends: ClassVar[MaskSpec]
    writes: ClassVar[Literal["tokens", "numbers"]] = "tokens"
    fills_gaps: ClassVar[bool] = False
    sampler: ClassVar[str] = "stepwise"

    def __init__(self, vocabulary: Vocabulary, limit: int = 100) -> None:
        super().__init__()
        if limit < 1:
            raise ValueError(f"limit {limit}: a sequence holds at least one token")
        if self.writes == "numbers" and vocabulary.size:
            raise UserError(f"{type(self).__name__} writes numbers, this task's sequences are tokens: change process")
        self.vocabulary, self.limit = vocabulary, limit

    @property
    def timed(self) -> bool:
        return False

    @property
    def recalls(self) -> bool:
        """Whether the network also reads its own last answer, the `estimate` of a batch."""
        return False

    @property
    def pairs(self) -> bool:
        """Whether each sequence starts from its row of the memory `source`, which is as long."""
        return False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Logits a site needs; where numbers are written, their channels."""

    def condition_on(self, conditions: Conditions) -> None:
        """How batches write their condition, told before anything is learnt or loaded; nothing by default."""

    @abstractmethod
    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        """Learn from the training lengths, and the condition of each, whatever the process itself models."""

    def fit_tokens(self, counts: Int[Tensor, " V"]) -> None:
        """Learn from how often each data token occurs in training; nothing by default."""

    def fit_numbers(self, numbers: Float[Tensor, "T C"]) -> None:
        """Learn from the numbers of all training tokens; nothing by default.

        `UserError` for numbers that the process cannot learn from.
        """

    def refuse_long(self, lengths: Int[Tensor, " N"]) -> None:
        """`UserError` where a sequence is longer than the limit."""
        longest = int(lengths.max())
        if longest > self.limit:
            raise UserError(
                f"a sequence has {longest} tokens, above the model's {self.limit}: "
                f"train with process.limit={longest}, or prepare with max_length={self.limit}"
            )

    @abstractmethod
    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        """The batch as the path shows it at `time`, targets set to the data."""

    @abstractmethod
    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        """The training loss of one draw of time and corruption."""

    @abstractmethod
    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        """Sequences at t = 0."""

    @abstractmethod
    def grid(self, steps: int) -> list[tuple[float, float]]:
        """The (t, s) of each step of a sampler."""

    @abstractmethod
    def lengths(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        """Lengths to start from, drawn from the learnt prior of each row's condition, restricted to `allowed`."""

    @abstractmethod
    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Transition:
        """The law of one step from t to s."""

    @abstractmethod
    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        """NLL of each sequence; `points` evaluations each where it is a bound."""


def flat(values: Shaped[Tensor, "B L *F"]) -> Shaped[Tensor, "B S"]:
    """Sites of a batch: fields follow each other inside a token."""
    return values.flatten(1)
