"""The nouns: Task, Sample, Rewards, Batch, Context.

Axis letters, here and everywhere: n samples, s steps of a sample, t tokens of a sample, m nodes of the tree, p pairs.
Rewards are NumPy (a scoring process never imports torch); a Batch is torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from guerdon.registry import Refused
from guerdon.tree import Tree, forest

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

Span = tuple[int, int]
Spans = dict[str, list[Span]]
Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One thing to do. `prompt` is text, or messages whose parts may name images, sound, video."""

    id: str
    prompt: Prompt
    reference: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of id and prompt: tasks of two files may have the same ids, where these are row numbers."""
        content = repr((self.id, self.prompt)).encode("utf-8", "surrogatepass")
        return f"{self.id}/{hashlib.blake2b(content, digest_size=8).hexdigest()}"


@dataclass
class Sample:
    """One trajectory. `ids` are the truth and are never rebuilt from text; a sample read from a file may have text only."""

    task: Task
    text: str
    """All that follows the prompt."""
    prompt_ids: np.ndarray | None = None
    """(P,) tokens of the prompt; they are in no array over t."""
    ids: np.ndarray | None = None
    """(t,) tokens of `text`."""
    offsets: np.ndarray | None = None
    """(t, 2) characters of `text` that each token covers."""
    written: np.ndarray | None = None
    """(t,) False where a tool or a hint wrote the token."""
    logprobs: np.ndarray | None = None
    """(t,) of the full softmax at the sampling temperature, before top-p and top-k; NaN where unknown."""
    version: int = 0
    """Of the weights that wrote it."""
    source: str = "policy"
    spans: Spans = field(default_factory=dict)
    """step, turn, think, answer ... in tokens; in characters of `text` where there are no ids."""
    marks: Spans = field(default_factory=dict)
    """The same spans in characters of `text`, always."""
    group: int = 0
    path: tuple[int, ...] = ()
    stop: str | None = None
    """Why it ended (see `STOPS`); None while unfinished."""
    messages: list[dict[str, Any]] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def cut(self, name: str) -> list[str]:
        """The texts of the spans called `name`, in order; [] where there are none."""
        return [self.text[start:end] for start, end in self.marks.get(name, [])]

    @property
    def answer(self) -> str | None:
        """The text of the last `answer` span, or None where no answer was found."""
        found = self.cut("answer")
        return found[-1] if found else None

    @property
    def thinking(self) -> str:
        return "".join(self.cut("think"))

    @property
    def steps(self) -> list[str]:
        return self.cut("step")


STOPS = ("end", "stop", "length", "tool", "error")
"""end: the end-of-text token.  stop: a stop sequence.  length: out of tokens.  tool: an environment ended it.  error: it broke off."""


class State(IntEnum):
    """Of one value. ABSTAINED: the reward does not apply. FAILED: no verdict, and not the sample's fault."""

    SCORED = 0
    ABSTAINED = 1
    FAILED = 2


HOSTILE = "hostile"
"""How the reason of a value begins that the sample itself caused: it is scored at the reward's `wrong`, and counted apart."""


@dataclass(frozen=True)
class Verdict:
    """What a reward may return instead of a number. `value` None with state SCORED means abstained."""

    value: float | None
    reason: str = ""
    state: State = State.SCORED
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def abstain(reason: str) -> Verdict:
        return Verdict(None, reason, State.ABSTAINED)

    @staticmethod
    def fail(reason: str) -> Verdict:
        return Verdict(None, reason, State.FAILED)


Name = Literal["outcome", "step", "token"]
GRAINS: tuple[Name, ...] = ("outcome", "step", "token")


@dataclass
class Grain:
    """Values of one grain: outcome (n,), step (n, s) or token (n, t).

    value: float64, finite, 0 where nothing was scored.  state: int8, `State`; cells past a sample's last step or token
    are ABSTAINED.  reason: index -> why, only where there is something to say.
    """

    value: np.ndarray
    state: np.ndarray
    reason: dict[tuple[int, ...], str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, state: Any = None, reason: Mapping[tuple[int, ...], str] | None = None) -> Grain:
        value = np.asarray(value, dtype=np.float64)
        state = np.zeros(value.shape, dtype=np.int8) if state is None else np.asarray(state, dtype=np.int8)
        return cls(np.where(state == State.SCORED, value, 0.0), state, dict(reason or {}))

    @classmethod
    def ragged(cls, rows: Sequence[Sequence[float | None]]) -> Grain:
        """Rows of different length, None for abstained, padded with ABSTAINED to one column or more: an empty row can still be failed."""
        width = max((len(row) for row in rows), default=1) or 1
        value = np.zeros((len(rows), width))
        state = np.full((len(rows), width), State.ABSTAINED, dtype=np.int8)
        for i, row in enumerate(rows):
            for j, x in enumerate(row):
                if x is not None:
                    value[i, j], state[i, j] = x, State.SCORED
        return cls(value, state)

    @property
    def scored(self) -> np.ndarray:
        return self.state == State.SCORED

    @property
    def failed(self) -> np.ndarray:
        return self.state == State.FAILED

    def rows(self, index: np.ndarray) -> Grain:
        """The rows at integer positions `index`."""
        new = {}
        if self.reason:
            by_row: dict[int, list[tuple[tuple[int, ...], str]]] = {}
            for cell, why in self.reason.items():
                by_row.setdefault(cell[0], []).append((cell[1:], why))
            new = {(i, *rest): why for i, old in enumerate(index.tolist()) for rest, why in by_row.get(old, ())}
        return Grain(self.value[index], self.state[index], new)

    def why(self, row: int) -> str:
        """Every reason of a row, in order of its cells, each once."""
        found = sorted((cell, why) for cell, why in self.reason.items() if cell[0] == row)
        return "; ".join(dict.fromkeys(why for _, why in found))

    @staticmethod
    def stack(grains: Sequence[Grain]) -> Grain:
        """Rows of all, padded with ABSTAINED to the widest."""
        if all(g.value.ndim == 1 for g in grains):
            value = np.concatenate([g.value for g in grains])
            state = np.concatenate([g.state for g in grains])
        else:
            shape = (sum(len(g.value) for g in grains), max(g.value.shape[1] for g in grains))
            value, state = np.zeros(shape), np.full(shape, State.ABSTAINED, dtype=np.int8)
            at = 0
            for g in grains:
                value[at : at + len(g.value), : g.value.shape[1]] = g.value
                state[at : at + len(g.value), : g.value.shape[1]] = g.state
                at += len(g.value)
        reason, at = {}, 0
        for g in grains:
            reason.update({(cell[0] + at, *cell[1:]): why for cell, why in g.reason.items()})
            at += len(g.value)
        return Grain(value, state, reason)


def _of_rows(cells: np.ndarray) -> np.ndarray:
    return cells if cells.ndim == 1 else np.asarray(cells.any(1))


@dataclass
class Part:
    """A raw reward inside an expression, and the factor it enters with (None where it does not enter as a sum)."""

    rewards: Rewards
    coefficient: float | None = 1.0


@dataclass
class Rewards:
    """Rewards of n samples at up to three grains, side by side."""

    outcome: Grain | None = None
    step: Grain | None = None
    token: Grain | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    """By-products of scoring, by name: one entry a sample, a list of length n."""

    def __post_init__(self) -> None:
        sizes = {len(grain.value) for _, grain in self.grains()}
        if len(sizes) != 1:
            raise ValueError(f"Rewards need at least one grain, and grains of one length, not {sorted(sizes)}.")

    def grains(self) -> Iterator[tuple[Name, Grain]]:
        for name in GRAINS:
            grain = getattr(self, name)
            if grain is not None:
                yield name, grain

    def __len__(self) -> int:
        return next(len(grain.value) for _, grain in self.grains())

    @property
    def failed(self) -> np.ndarray:
        """(n,) True where any value of the sample failed: failed makes what it enters failed."""
        return np.logical_or.reduce([_of_rows(g.failed) for _, g in self.grains()])

    @property
    def alive(self) -> np.ndarray:
        """(n,) True where something was scored and nothing failed. The others have advantage 0 and are in no baseline."""
        some = np.logical_or.reduce([_of_rows(g.scored) for _, g in self.grains()])
        return some & ~self.failed

    @property
    def state(self) -> np.ndarray:
        """(n,) `State` of the sample as a whole."""
        state = np.where(self.alive, State.SCORED, State.ABSTAINED)
        return np.where(self.failed, State.FAILED, state).astype(np.int8)

    @property
    def hostile(self) -> np.ndarray:
        """(n,) True where a value of the sample, or of any of its parts, was the sample's own attack on the grader."""
        found = np.zeros(len(self), dtype=bool)
        for _, grain in self.grains():
            for cell, why in grain.reason.items():
                found[cell[0]] |= why.startswith(HOSTILE)
        for part in self.parts.values():
            found |= part.rewards.hostile
        return found

    def total(self) -> np.ndarray:
        """(n,) one number a sample, for tables and curves: the outcome, or where there is none the sum over its steps, or its tokens."""
        grain = self.outcome or self.step or self.token
        assert grain is not None
        return grain.value if grain.value.ndim == 1 else grain.value.sum(1)

    def why(self, row: int) -> str:
        return "; ".join(filter(None, (grain.why(row) for _, grain in self.grains())))

    def map(self, value: Callable[[Grain], np.ndarray]) -> Rewards:
        """Other values of the same states and reasons, in every grain; without parts and evidence."""
        return Rewards(**{name: Grain.of(value(g), g.state.copy(), g.reason) for name, g in self.grains()}, parts={}, evidence={})

    def rows(self, index: Iterable[int] | np.ndarray) -> Rewards:
        index = np.asarray(index if isinstance(index, np.ndarray) else list(index))
        if index.dtype == bool:
            raise ValueError("Rewards.rows takes positions, not a mask; use np.flatnonzero(mask).")
        index = index.astype(np.int64)
        return Rewards(
            **{name: grain.rows(index) for name, grain in self.grains()},
            parts={name: Part(part.rewards.rows(index), part.coefficient) for name, part in self.parts.items()},
            evidence={name: [entry[i] for i in index.tolist()] for name, entry in self.evidence.items()},
        )

    @staticmethod
    def stack(several: Sequence[Rewards]) -> Rewards:
        """One Rewards of all rows; every one must have the same grains and parts."""
        first = several[0]
        if len(several) == 1:
            return first
        shapes = {(tuple(name for name, _ in r.grains()), tuple(r.parts), tuple(r.evidence)) for r in several}
        if len(shapes) != 1:
            raise ValueError(f"Rewards of unlike grains, parts or evidence cannot be stacked: {sorted(shapes)}")
        return Rewards(
            **{name: Grain.stack([getattr(r, name) for r in several]) for name, _ in first.grains()},
            parts={
                name: Part(Rewards.stack([r.parts[name].rewards for r in several]), part.coefficient) for name, part in first.parts.items()
            },
            evidence={name: [entry for r in several for entry in r.evidence[name]] for name in first.evidence},
        )

    def to_tokens(self, step_of: np.ndarray, lengths: np.ndarray, place: Literal["all", "last"] = "last") -> np.ndarray:
        """(n, t) all grains moved to tokens and added.

        step_of (n, t): the step of each token, -1 outside any step.  lengths (n,): tokens of each sample.
        place "last": on the last token of the sample or step.  "all": on every one. A sample without tokens keeps nothing.
        """
        n, t = step_of.shape
        columns = np.arange(t)
        out = np.zeros((n, t))
        if self.token is not None:
            width = min(t, self.token.value.shape[1])
            out[:, :width] += self.token.value[:, :width]
        if self.outcome is not None and place == "all":
            out += self.outcome.value[:, None] * (columns < lengths[:, None])
        elif self.outcome is not None:
            rows = np.flatnonzero(lengths)
            out[rows, lengths[rows] - 1] += self.outcome.value[rows]
        if self.step is not None:
            inside = (step_of >= 0) & (step_of < self.step.value.shape[1])
            if place == "last":
                inside[:, :-1] &= step_of[:, 1:] != step_of[:, :-1]
            row, column = np.nonzero(inside)
            step = step_of[row, column]
            if place == "last":
                last = np.zeros(self.step.value.shape, dtype=np.int64)
                last[row, step] = column  # the last one written stays: a step that another interrupts is paid once
                row, column, step = (x[last[row, step] == column] for x in (row, column, step))
            out[row, column] += self.step.value[row, step]
        return out


@dataclass
class Kept:
    """What curation kept. Other rows leave before credit; a row of weight 0 stays in baselines and gets no gradient."""

    rows: np.ndarray
    weights: np.ndarray
    """(n,) over all rows given, before rows are dropped."""
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    """(p, 2) chosen and rejected, positions among the rows given."""


class Progress(NamedTuple):
    """Where a run stands, in optimiser steps, never in time."""

    step: int
    total: int

    @property
    def share(self) -> float:
        return min(1.0, self.step / self.total) if self.total else 1.0


@dataclass
class Context:
    """The services of a run by name. A service that is None is not there; a reward that asks for it is refused by name."""

    models: dict[str, Any] = field(default_factory=dict)
    score: Callable[..., Rewards] | None = None
    """(samples) -> Rewards by the recipe's expression."""
    embed: Callable[[Sequence[str]], np.ndarray] | None = None
    retrieve: Callable[..., Any] | None = None
    sandbox: Any = None
    store: Any = None
    workers: Any = None
    """A `workers.Pool` for rewards that parse what a model wrote; an engine offers its own where there is none."""
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    rng: np.random.Generator | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    """Tokens that models computed, by room: see `backends.base.Usage`."""

    def spend(self, room: str, usage: Any) -> None:
        self.usage[room] = self.usage[room] + usage if room in self.usage else usage

    def service(self, name: str) -> Any:
        """The service or model of that name, or None."""
        return self.models[name] if name in self.models else getattr(self, name, None)


SERVICES = ("score", "embed", "retrieve", "sandbox", "store", "workers", "progress", "rng")


@dataclass
class Batch:
    """What credit and losses see: plain tensors, one row a sample, padded on the right."""

    prompts: list[Int[Tensor, " P"]]
    """The prompt of each row."""
    ids: Int[Tensor, "n t"]
    mask: Bool[Tensor, "n t"]
    """True on tokens that the policy wrote; False on tools, hints and padding."""
    lengths: Int[Tensor, " n"]
    """Tokens of each row, whoever wrote them."""
    step_of: Int[Tensor, "n t"]
    """-1 outside any step."""
    node_of: Int[Tensor, "n t"]
    """-1 at padding."""
    group: Int[Tensor, " n"]
    """0, 1, 2 ... in order of first appearance."""
    rewards: Rewards
    tree: Tree
    unit: Int[Tensor, " n"]
    """Rows of one unit share a micro-batch."""
    advantages: Float[Tensor, "n t"]
    weights: Float[Tensor, "n t"]
    pairs: Int[Tensor, "p 2"]
    fields: dict[str, Tensor] = field(default_factory=dict)
    """logprobs, ref_logprobs, values, values/NAME, entropy, margin, numeric columns of meta."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def outcome(self) -> Float[Tensor, " n"]:
        """Outcome rewards; 0 where not scored (see `alive`)."""
        import torch

        if self.rewards.outcome is None:
            raise Refused("This credit needs an outcome reward, and the recipe's reward gives none; use one that scores whole answers.")
        return torch.from_numpy(self.rewards.outcome.value).to(self.weights.device, self.weights.dtype)

    @cached_property
    def alive(self) -> Bool[Tensor, " n"]:
        """False where the sample failed or abstained on everything: advantage 0, in no baseline and no denominator."""
        import torch

        return torch.from_numpy(self.rewards.alive).to(self.weights.device)

    @cached_property
    def step_at(self) -> Int[Tensor, "n t"]:
        """`step_of` with 0 in the place of -1: an index that may be gathered by."""
        return self.step_of.clamp(min=0)

    @cached_property
    def token_rewards(self) -> Float[Tensor, "n t"]:
        """All grains on tokens, outcome and steps on their last one."""
        import torch

        out = torch.zeros_like(self.weights)
        if self.rewards.step is not None or self.rewards.token is not None:
            fine = Rewards(step=self.rewards.step, token=self.rewards.token)
            placed = fine.to_tokens(self.step_of.cpu().numpy(), self.lengths.cpu().numpy(), place="last")
            out += torch.from_numpy(placed).to(out.device, out.dtype)
        if self.rewards.outcome is not None:
            rows = self.lengths.nonzero()[:, 0]
            out[rows, self.lengths[rows] - 1] += self.outcome[rows]
        return out

    def field(self, name: str) -> Tensor:
        if name not in self.fields:
            raise Refused(f"The batch has no field {name!r}; it has: {', '.join(sorted(self.fields)) or 'none'}.")
        return self.fields[name]

    def rows(self, index: Tensor) -> Batch:
        """The rows at integer positions `index`, cut to their longest. Pairs are renumbered; a pair that loses a side is left out."""
        import torch

        keep = max(int(self.lengths[index].max()), 1) if len(index) else 1
        t = self.ids.shape[1]
        position = torch.full((len(self),), -1, dtype=torch.long, device=index.device)
        position[index] = torch.arange(len(index), device=index.device)
        pairs = position[self.pairs] if len(self.pairs) else self.pairs

        def pick(x: Tensor) -> Tensor:
            x = x[index]
            return x[:, :keep] if x.ndim > 1 and x.shape[1] == t else x

        return replace(
            self,
            prompts=[self.prompts[i] for i in index.tolist()],
            **{
                name: pick(getattr(self, name))
                for name in ("ids", "mask", "lengths", "step_of", "node_of", "group", "unit", "advantages", "weights")
            },
            rewards=self.rewards.rows(index.cpu().numpy()),
            pairs=pairs[(pairs >= 0).all(1)],
            fields={name: pick(x) for name, x in self.fields.items()},
        )


def collate(samples: Sequence[Sample], rewards: Rewards, *, dtype: Any = None) -> Batch:
    """Samples with ids -> a Batch, without advantages (0), with weight 1 on every written token of a living row.

    Fields: `logprobs`, `expert` (1 where the policy did not write the sample, else 0), numeric columns of meta that all samples have.
    Raises Refused for a sample without ids, with arrays that are not one entry a token, or with steps that overlap or lie outside it.
    """
    import torch

    dtype = dtype or torch.float32
    if len(samples) != len(rewards):
        raise ValueError(f"{len(samples)} samples but rewards of {len(rewards)}.")
    for i, sample in enumerate(samples):
        _check_sample(i, sample)
    n = len(samples)
    rows = [np.asarray(s.ids, dtype=np.int64) for s in samples]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    t = max(int(lengths.max(initial=0)), 1)
    ids = np.zeros((n, t), dtype=np.int64)
    mask = np.zeros((n, t), dtype=bool)
    step_of = np.full((n, t), -1, dtype=np.int64)
    logprobs = np.zeros((n, t))
    for i, s in enumerate(samples):
        k = int(lengths[i])
        ids[i, :k] = rows[i]
        mask[i, :k] = True if s.written is None else s.written
        logprobs[i, :k] = np.where(mask[i, :k], np.nan if s.logprobs is None else s.logprobs, 0.0)
        for j, (start, end) in enumerate(s.spans.get("step", [])):
            step_of[i, start:end] = j
    _, first, inverse = np.unique([s.group for s in samples], return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[inverse] if n else np.zeros(0, dtype=np.int64)
    tree, node_of = forest(rows, group)
    if node_of.shape[1] < t:
        node_of = np.full((n, t), -1, dtype=np.int64)
    fields = {}
    for name in sorted(set.intersection(*(set(s.meta) for s in samples))) if n else ():
        if all(isinstance(s.meta[name], (int, float)) and not isinstance(s.meta[name], bool) for s in samples):
            fields[name] = torch.tensor([float(s.meta[name]) for s in samples], dtype=dtype)
    fields["logprobs"] = torch.from_numpy(logprobs).to(dtype)  # whatever a column of meta is called
    fields["expert"] = torch.tensor([float(s.source != "policy") for s in samples], dtype=dtype)
    live = torch.from_numpy(rewards.alive)
    return Batch(
        prompts=[torch.from_numpy(np.asarray(s.prompt_ids, dtype=np.int64)) for s in samples],
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        lengths=torch.from_numpy(lengths),
        step_of=torch.from_numpy(step_of),
        node_of=torch.from_numpy(node_of),
        group=torch.from_numpy(group),
        rewards=rewards,
        tree=tree,
        unit=torch.arange(n),
        advantages=torch.zeros((n, t), dtype=dtype),
        weights=(torch.from_numpy(mask) & live[:, None]).to(dtype),
        pairs=torch.zeros((0, 2), dtype=torch.long),
        fields=fields,
    )


def _check_sample(i: int, sample: Sample) -> None:
    who = f"Sample {i} (task {sample.task.id!r})"
    if sample.ids is None or sample.prompt_ids is None:
        raise Refused(f"{who} has text but no token ids; sample it, or tokenize it through a backend.")
    k = len(sample.ids)
    for name in ("written", "logprobs"):
        array = getattr(sample, name)
        if array is not None and len(array) != k:
            raise Refused(f"{who} has {k} token ids but {len(array)} entries of `{name}`: they are of other tokens; give one a token.")
    end = 0
    for j, (start, stop) in enumerate(sample.spans.get("step", [])):
        if not 0 <= start <= stop <= k:
            raise Refused(f"{who}: step {j} in `spans` covers tokens {start}:{stop}, but the sample has {k}.")
        if start < end:
            raise Refused(f"{who}: step {j} in `spans` begins at token {start}, within the step before it, which ends at {end}.")
        end = stop
