"""Batches with everything that goes wrong in practice, from a seed; shared by the tests of credit, losses and the rooms around them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
import torch

from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task, collate

hypothesis.settings.register_profile("guerdon", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("guerdon")


def random_samples(rng: np.random.Generator, n: int, groups: int) -> list[Sample]:
    """Ragged answers of 0 to 9 tokens over 4 letters; tool tokens in the middle and at both ends; ragged steps; some cut off."""
    tasks = [Task(f"t{g}", "p") for g in range(groups)]
    samples = []
    for _ in range(n):
        t = int(rng.choice([0, 1, 1, 2, 5, 9]))
        kind = rng.choice(["all", "all", "some", "ends", "none"])
        written = {"all": np.ones(t, bool), "none": np.zeros(t, bool), "some": rng.random(t) < 0.6, "ends": np.ones(t, bool)}[kind]
        if kind == "ends":
            written[:1] = written[-1:] = False
        cuts = np.unique(rng.integers(0, t + 1, int(rng.integers(0, 4)))).tolist()
        g = int(rng.integers(groups))
        ids = rng.integers(0, 4, t)
        logprobs = np.where(written, -rng.exponential(1.0, t), np.nan)
        steps = [(a, b) for a, b in itertools.pairwise(cuts)]
        stop = str(rng.choice(["end", "length"]))
        samples.append(Sample(tasks[g], "", np.array([7]), ids, None, written, logprobs, group=10 * g, stop=stop, spans={"step": steps}))
    return samples


def random_rewards(rng: np.random.Generator, samples: Sequence[Sample], grains: Sequence[str]) -> Rewards:
    """Per group: values all equal, of two kinds, or spread out; one in four failed or abstained, some groups wholly so."""
    n = len(samples)
    outcome, state = np.zeros(n), np.zeros(n, dtype=np.int8)
    for g in {s.group for s in samples}:
        rows = np.flatnonzero([s.group == g for s in samples])
        kind = rng.choice(["equal", "binary", "spread"])
        outcome[rows] = {"equal": 0.1, "binary": rng.integers(0, 2, len(rows)), "spread": rng.normal(size=len(rows))}[kind]
        state[rows] = rng.choice([0, 0, 0, 0, 0, 0, 1, 2], len(rows)) if rng.random() < 0.85 else rng.choice([1, 2])
    made = {}
    if "outcome" in grains:
        made["outcome"] = Grain.of(outcome, state, {(int(i),): "why" for i in np.flatnonzero(state)})
    if "step" in grains:
        made["step"] = Grain.ragged([rng.normal(size=len(s.spans["step"])).tolist() for s in samples])
    if "token" in grains:
        lengths = [0 if s.ids is None else len(s.ids) for s in samples]
        made["token"] = Grain.ragged([rng.normal(size=t).tolist() for t in lengths])
    for name in ("step", "token"):
        if name in made:
            made[name].state[(made[name].state == State.SCORED) & (rng.random(made[name].value.shape) < 0.1)] = State.ABSTAINED
            made[name].value[made[name].state != State.SCORED] = 0
    return Rewards(**made)


@pytest.fixture(scope="session")
def awkward():
    """make(seed, grains=("outcome",), dtype=torch.float64, padding=0, n=None): a Batch with every field that today's pieces read."""

    def make(
        seed: int, grains: Sequence[str] = ("outcome",), dtype: torch.dtype = torch.float64, padding: int = 0, n: int | None = None
    ) -> Batch:
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 13)) if n is None else n
        samples = random_samples(rng, n, groups=int(rng.integers(1, 5)))
        empty = {name: Grain.of(np.zeros(0 if name == "outcome" else (0, 1))) for name in grains}
        rewards = random_rewards(rng, samples, grains) if n else Rewards(**empty)
        batch = collate(samples, rewards, dtype=dtype)
        row_weight = torch.from_numpy(rng.choice([1.0, 1.0, 1.0, 0.5, 0.0], n)).to(dtype)
        batch.weights = batch.weights * row_weight[:, None]
        shape = batch.ids.shape
        batch.advantages = torch.from_numpy(rng.normal(size=shape)).to(dtype) * (batch.mask & batch.alive[:, None])
        for name in ("ref_logprobs", "values", "returns"):
            x = rng.normal(size=shape) if name != "ref_logprobs" else -rng.exponential(1.0, shape)
            batch.fields[name] = torch.from_numpy(x).to(dtype)
        entropy = np.random.default_rng([seed, 1]).exponential(1.0, shape)  # of its own, so that the other draws stay as they were
        batch.fields["entropy"] = torch.from_numpy(entropy).to(dtype)
        expert = torch.from_numpy(rng.random(n) < 0.3) & ~(batch.weights > 0).any(1)
        batch.fields["logprobs"][expert & ~batch.alive] = torch.nan  # rows of files have none; these count nowhere
        if n > 2:
            batch.unit = torch.from_numpy(rng.integers(0, n, n))
            batch.pairs = torch.tensor([[i, j] for i in range(n) for j in range(n) if i != j and batch.unit[i] == batch.unit[j]][:4])
            batch.pairs = batch.pairs.reshape(-1, 2).long()
            if rng.random() < 0.3:  # as after curation or a split: group numbers with gaps
                batch = batch.rows(torch.from_numpy(np.sort(rng.permutation(n)[: n - 1])))
        return pad(batch, padding)

    return make


def pad(batch: Batch, columns: int) -> Batch:
    """More padding on the right."""
    if not columns:
        return batch
    t = batch.ids.shape[1]

    def wider(x: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.cat([x, torch.full((len(x), columns), fill, dtype=x.dtype)], 1) if x.ndim > 1 and x.shape[1] == t else x

    for name, fill in {"ids": 0, "mask": False, "step_of": -1, "node_of": -1, "advantages": 0, "weights": 0}.items():
        setattr(batch, name, wider(getattr(batch, name), fill))
    batch.fields = {name: wider(x, 0) for name, x in batch.fields.items()}
    return batch
