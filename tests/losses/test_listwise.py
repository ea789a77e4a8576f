"""Ranked lists against a plain loop over branches and steps; limits; where lists are ragged."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.losses import dpo, listwise, pair_mean, row_mean, tpo
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

seeds = st.integers(0, 2**32 - 1)


def outputs(batch: Batch, seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    n, t = batch.ids.shape
    return {"logprobs": -torch.from_numpy(rng.exponential(1.0, (n, t))), "hidden": torch.from_numpy(rng.normal(size=(n, t, 3)))}


def twin(out: dict[str, torch.Tensor], batch: Batch, beta: float, ranks: str, adaptive: bool) -> float:
    logprobs, hidden, reference = out["logprobs"].numpy(), out["hidden"].numpy(), batch.fields["ref_logprobs"].numpy()
    weights, v = batch.weights.numpy(), batch.outcome.numpy()
    total = 0.0
    for g in set(batch.group.tolist()):
        rows = [i for i in range(len(batch)) if int(batch.group[i]) == g and weights[i].max() > 0]
        if not rows:
            continue
        steps = {}
        for i in rows:
            found: dict[int, list[int]] = {}
            bare = all(int(k) < 0 for k in batch.step_of[i])
            for t in range(batch.ids.shape[1]):
                k = 0 if bare else int(batch.step_of[i, t])
                if weights[i, t] and k >= 0:
                    found.setdefault(k, []).append(t)
            steps[i] = found
        best = max(rows, key=lambda i: (v[i], sum(logprobs[i, t] for t in range(weights.shape[1]) if weights[i, t])))
        h = {}
        for i in rows:
            up = down = 0.0
            for k, at in steps[i].items():
                w = 1.0
                if adaptive:
                    if k not in steps[best]:
                        continue
                    e, top = hidden[i, at].mean(0), hidden[best, steps[best][k]].mean(0)
                    w = 1 + float(e @ top) / (np.linalg.norm(e) * np.linalg.norm(top))
                up += w * float(np.mean(logprobs[i, at] - reference[i, at]))
                down += w
            if down > 1e-9:
                h[i] = up / down

        def rank(i: int, h=h) -> int:
            return 1 + sum(h[j] > h[i] or (h[j] == h[i] and v[j] < v[i]) for j in h)

        pairs = [(i, j) for i in h for j in h if v[i] > v[j]]
        for i, j in pairs:
            size = abs(2 ** v[i] - 2 ** v[j]) * abs(1 / math.log2(1 + rank(i)) - 1 / math.log2(1 + rank(j))) if ranks == "lambda" else 1.0
            share = sum(weights[r].max() for r in h) / len(pairs)
            total += share * size * math.log1p(math.exp(-beta * (h[i] - h[j])))
    return float(total)


@pytest.mark.parametrize("ranks", ["lambda", "one"])
@given(seed=seeds)
def test_both_equal_the_loop(awkward, ranks, seed):
    batch = awkward(seed)
    batch.weights = row_mean(batch)
    out = outputs(batch, seed)
    assert float(listwise(out, batch, 0.3, ranks)[0]) == pytest.approx(twin(out, batch, 0.3, ranks, False), rel=1e-7, abs=1e-9)
    assert float(tpo(out, batch, 0.3, ranks)[0]) == pytest.approx(twin(out, batch, 0.3, ranks, True), rel=1e-7, abs=1e-9)


@given(seed=seeds)
def test_the_order_of_rows_does_not_matter(awkward, seed):
    batch = awkward(seed)
    out = outputs(batch, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch)))
    shuffled = batch.rows(order)
    moved = {name: x[order][:, : shuffled.ids.shape[1]] for name, x in out.items()}
    for fn in (listwise, tpo):
        assert float(fn(moved, shuffled)[0]) == pytest.approx(float(fn(out, batch)[0]), rel=1e-9, abs=1e-12)


def lists(values: list[list[float]], tokens: int = 3, steps: int = 1) -> tuple[dict[str, torch.Tensor], Batch]:
    rng = np.random.default_rng(0)
    spans = {"step": [(k * tokens // steps, (k + 1) * tokens // steps) for k in range(steps)]}
    samples = [
        Sample(Task(str(g), "p"), "", np.array([1]), rng.integers(0, 4, tokens), group=g, spans=spans)
        for g, vs in enumerate(values)
        for _ in vs
    ]  # fmt: skip
    batch = collate(samples, Rewards(Grain.of([v for vs in values for v in vs])), dtype=torch.float64)
    batch.unit = batch.group
    batch.fields["ref_logprobs"] = torch.from_numpy(-rng.exponential(1.0, batch.ids.shape))
    return outputs(batch, 1), batch


def test_a_list_of_two_with_one_step_and_no_weights_is_dpo_of_means():
    out, batch = lists([[1.0, 0.0], [0.2, 0.7]])
    batch.pairs = torch.tensor([[0, 1], [3, 2]])
    weights, batch.weights = batch.weights, row_mean(batch)
    both = [float(fn(out, batch, 0.3, "one")[0]) for fn in (listwise, tpo)]
    batch.weights = weights
    batch.weights = pair_mean(batch)
    of_means = {"logprobs": out["logprobs"] / 3}
    batch.fields["ref_logprobs"] = batch.fields["ref_logprobs"] / 3
    assert both == pytest.approx([float(dpo(of_means, batch, 0.3)[0])] * 2, abs=1e-12)


def test_the_best_branch_is_pushed_up_from_the_start_where_policy_and_reference_are_one():
    out, batch = lists([[0.2, 1.0, 0.0, 0.6]], tokens=6, steps=2)
    batch.fields["ref_logprobs"] = out["logprobs"].clone()
    for fn in (listwise, tpo):
        logprobs = out["logprobs"].clone().requires_grad_()
        (grad,) = torch.autograd.grad(fn({**out, "logprobs": logprobs}, batch)[0], logprobs)
        assert (grad[1] < 0).all()
        assert (grad[2] > 0).all()


def test_steps_that_the_best_branch_lacks_count_nothing_and_a_branch_of_only_such_steps_is_in_no_pair():
    out, batch = lists([[1.0, 0.0, 0.5]], tokens=4, steps=2)
    batch.step_of[0] = torch.tensor([0, 0, 0, 0])
    batch.step_of[1] = torch.tensor([1, 1, 1, 1])
    logprobs = out["logprobs"].clone().requires_grad_()
    (grad,) = torch.autograd.grad(tpo({**out, "logprobs": logprobs}, batch)[0], logprobs)
    assert not grad[1].any()
    assert grad[2, :2].all()
    assert not grad[2, 2:].any()
