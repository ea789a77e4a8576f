"""Credit of thoughts left at several exits, against plain loops and against the rollout that makes them."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from guerdon.backends.tabular import tabular
from guerdon.credit import anytime_brpo, dr_grpo, s_grpo
from guerdon.registry import Refused
from guerdon.rollouts import serial_exits
from guerdon.samples import Batch, Context, Grain, Rewards, Sample, State, Task, collate

seeds = st.integers(0, 2**32 - 1)
CUTS = (2, 4, 7)


def thoughts(seed: int, failed: bool = True) -> Batch:
    """Groups of thoughts of 0 to 8 tokens, each answered at the budgets CUTS (past its end: the whole rollout again) and whole."""
    rng = np.random.default_rng(seed)
    samples = []
    for g in range(int(rng.integers(1, 4))):
        answers = int(rng.integers(1, 4))
        for thought in range(int(rng.integers(1, 4))):
            long = int(rng.integers(0, 9))
            ids, ended = rng.integers(0, 4, long), rng.random() < 0.7
            whole = np.concatenate([ids, [8] if ended else [], rng.integers(0, 4, 2) if ended else []]).astype(int)
            for exit, cut in enumerate([*np.repeat(CUTS, answers), 99]):
                exit, early = (exit // answers if cut < 99 else len(CUTS)), cut < long or (cut < 99 and not ended)
                keep = min(int(cut), long)
                own = np.concatenate([ids[:keep], [9], rng.integers(0, 2, int(rng.integers(0, 3)))]).astype(int) if early else whole
                written = ~((np.arange(len(own)) == keep) & early)
                meta = {"thought": thought, "exit": exit, "exit_tokens": keep}
                samples.append(Sample(Task(str(g), "p"), "", np.array([1]), own, None, written, np.zeros(len(own)), group=g, meta=meta))
    n = len(samples)
    state = rng.choice([0, 0, 0, 0, State.ABSTAINED, State.FAILED], n) if failed else np.zeros(n, int)
    batch = collate(samples, Rewards(Grain.of(rng.choice([0.0, 1.0, 0.4], n), state)), dtype=torch.float64)
    return batch.rows(torch.from_numpy(rng.permutation(n)))


def twin(batch: Batch, prior: list[float]) -> np.ndarray:
    """The formula, one token at a time."""
    n, size = len(batch), len(prior)
    p = [x / sum(prior) for x in prior]
    own = [(int(batch.group[i]), int(batch.fields["thought"][i])) for i in range(n)]
    exit, tokens = batch.fields["exit"].long().tolist(), batch.fields["exit_tokens"].long().tolist()
    assert batch.rewards.outcome is not None
    good, value = batch.rewards.outcome.scored & batch.rewards.alive, batch.rewards.outcome.value
    ids = [tuple(batch.ids[i, : batch.lengths[i]].tolist()) for i in range(n)]
    at = {(g, s): [i for i in range(n) if own[i] == g and exit[i] == s and good[i]] for g in set(own) for s in range(size)}
    r = {key: float(np.mean(value[rows])) for key, rows in at.items() if rows}
    border = {(own[i], exit[i]): tokens[i] for i in range(n)}

    def over_thoughts(group: int, s: int) -> float:
        return float(np.mean([r[g, s] for g in set(own) if g[0] == group and (g, s) in r]))

    out = np.zeros(batch.ids.shape)
    for i in range(n):
        g = own[i]
        ended = tokens[i] < batch.lengths[i] and bool(batch.mask[i, tokens[i]])
        for t in range(int(batch.lengths[i])):
            if not (good[i] and batch.mask[i, t]):
                continue
            if t < tokens[i] + ended:
                place = t - (t == tokens[i])
                s = next(s for s in range(size) if border.get((g, s), -1) > place or s == size - 1 or (place < 0 and (g, s) in border))
                later = [j for j in range(s, size) if (g, j) in r]
                ret = sum(p[j] * r[g, j] for j in later)
                v2 = sum(p[j] * over_thoughts(g[0], j) for j in later)
                before = [j for j in range(s) if (g, j) in r]
                v1 = sum(2**j * r[g, j] for j in before) / sum(2**j for j in before) * sum(p[j] for j in later) if before else v2
                out[i, t] = ret - (s * v1 + (size - s) * v2) / size
            else:
                rows = at[g, exit[i]]
                one = len({ids[j] for j in rows}) == 1
                out[i, t] = value[i] - (over_thoughts(g[0], exit[i]) if one else r[g, exit[i]])
    return out


@pytest.mark.parametrize("prior", [[1.0, 1.0, 1.0, 1.0], [2.0, 4.0, 7.0, 9.0], [0.0, 0.0, 0.0, 1.0]])
@given(seed=seeds)
def test_anytime_against_a_plain_loop(prior, seed):
    batch = thoughts(seed)
    np.testing.assert_allclose(anytime_brpo(batch, prior), twin(batch, prior), atol=1e-9)


@given(seed=seeds)
def test_equal_answers_have_no_credit(seed):
    batch = thoughts(seed, failed=False)
    batch = replace(batch, rewards=Rewards(Grain.of(np.full(len(batch), 0.1))))
    assert not anytime_brpo(batch).any()
    assert not s_grpo(batch).any()


def test_by_hand_two_thoughts_at_one_budget_and_whole():
    """Thought 0 knows at two tokens and at the end, thought 1 only at the end."""

    def row(thought: int, exit: int, cut: int, ids: list[int], early: bool) -> Sample:
        written = np.array([not (early and k == cut) for k in range(len(ids))])
        meta = {"thought": thought, "exit": exit, "exit_tokens": cut}
        return Sample(Task("t", "p"), "", np.array([1]), np.array(ids), None, written, np.zeros(len(ids)), meta=meta)

    samples = [
        row(0, 0, 2, [1, 1, 9, 5], True), row(0, 1, 3, [1, 1, 1, 8, 5], False),
        row(1, 0, 2, [2, 2, 9, 6], True), row(1, 1, 3, [2, 2, 2, 8, 5], False),
    ]  # fmt: skip
    batch = collate(samples, Rewards(Grain.of([1.0, 1.0, 0.0, 1.0])), dtype=torch.float64)
    # first segment: Ret 1 and 1/2, V2 3/4.  second: Ret 1/2 twice, V2 1/2, V1 = (1 and 0) / 2, half of each
    first, second = 0.25, 0.5 - 0.5 * (0.5 + 0.5)
    late = 0.5 - 0.5 * (0.0 + 0.5)
    np.testing.assert_allclose(anytime_brpo(batch)[0], [first, first, 0.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(anytime_brpo(batch)[1], [first, first, second, second, 0.0], atol=1e-12)
    np.testing.assert_allclose(anytime_brpo(batch)[3], [-first, -first, late, late, 0.0], atol=1e-12)
    np.testing.assert_allclose(anytime_brpo(batch)[2], [-first, -first, 0.0, -0.5, 0.0], atol=1e-12)


@given(seed=seeds)
def test_s_grpo_is_dr_grpo_of_each_thought(seed):
    batch = thoughts(seed)
    for thought in batch.fields["thought"].unique():
        rows = (batch.fields["thought"] == thought).nonzero()[:, 0]
        part = batch.rows(rows)
        torch.testing.assert_close(s_grpo(batch)[rows][:, : part.ids.shape[1]], dr_grpo(part))


def test_on_what_the_rollout_makes():
    """The thought is `a`s up to `.`; at each budget b the policy answers y or n."""
    model = tabular(vocab="a.!yn", bias={"<end>": -1.0})
    context = Context(rng=np.random.default_rng(0))
    samples = serial_exits(
        model, [Task("t", "q")], 2 * (2 * 2 + 1), context, at=[1, 3], answers=2, inducer="!", think_end=".", max_tokens=6, answer_tokens=1
    )
    rewards = Rewards(Grain.of([float(s.text.endswith("y")) for s in samples]))
    batch = collate(samples, rewards, dtype=torch.float64)
    np.testing.assert_allclose(anytime_brpo(batch), twin(batch, [1.0, 1.0, 1.0]), atol=1e-9)
    assert anytime_brpo(batch).any()


def test_what_cannot_be_is_refused():
    batch = thoughts(0)
    with pytest.raises(Refused, match="each of the 4 exits"):
        anytime_brpo(batch, [1.0])
    del batch.fields["exit"]
    with pytest.raises(Refused, match="rollout: serial_exits"):
        anytime_brpo(batch)


def test_without_exits_they_are_refused_when_the_recipe_is_read():
    from guerdon.recipe import read

    recipe = {"models": {"policy": {"path": "tiny"}}, "tasks": {"use": "arithmetic", "n": 2}, "reward": "arithmetic | s_grpo"}
    for credit in ("s_grpo", "anytime_brpo"):
        with pytest.raises(Refused, match="'thought'"):
            read({**recipe, "credit": credit})
        assert read({**recipe, "credit": credit, "rollout": "serial_exits"}).credit.use == credit
