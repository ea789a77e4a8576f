"""The tabular backend against numbers worked out by hand, by torch's own optimiser and by sampling."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

import guerdon.losses  # noqa: F401 (fills the registry)
from guerdon.backends.base import LossCall, SamplingParams
from guerdon.backends.exact import exact
from guerdon.backends.tabular import END, tabular
from guerdon.registry import Broke, Refused
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate


def batch_of(model, prompts: list[str], rows: list[list[int]], advantages: Any = 1.0) -> Batch:
    samples = [
        Sample(Task(str(i), prompt), "", prompt_ids=model.encode(prompt), ids=np.array(row))
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]
    batch = collate(samples, Rewards(outcome=Grain.of(np.zeros(len(rows)))), dtype=torch.float64)
    batch.advantages = torch.as_tensor(advantages, dtype=torch.float64) * torch.ones_like(batch.advantages)
    return batch


def test_a_row_is_a_softmax_over_its_own_logits():
    model = tabular(vocab="ab", bias={"a": 1.0, END: -1.0})
    out, usage = model.forward(batch_of(model, ["?"], [[0, 1, 2]]), ("logprobs", "entropy", "logits"), temperature=0.5)
    z = np.exp(np.array([1.0, 0.0, -1.0]) / 0.5)
    p = z / z.sum()
    np.testing.assert_allclose(out["logprobs"][0], np.log(p), rtol=1e-14)
    np.testing.assert_allclose(out["entropy"][0], [-(p * np.log(p)).sum()] * 3, rtol=1e-14)
    np.testing.assert_array_equal(out["logits"][0], [[2.0, 0.0, -2.0]] * 3)
    assert (usage.prompt, usage.cached, usage.new) == (1, 0, 3)


def test_only_the_rows_on_the_path_learn():
    model = tabular(vocab="ab")
    model.forward_backward(batch_of(model, ["x"], [[0, 2]]), LossCall("policy_gradient"))
    model.optim_step(0.1, clip=None)
    at = [model.encode("x" + text) for text in ("", "a", "b")] + [model.encode("y")]
    first, second, other, prompt = model.logits_at(at).numpy()
    np.testing.assert_allclose(first, [0.1, -0.1, -0.1], rtol=1e-6)  # the first step of Adam is lr times the sign
    np.testing.assert_allclose(second, [-0.1, -0.1, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(np.stack([other, prompt]), np.zeros((2, 3)))
    assert len(model.index) == 2


def test_a_prompt_continued_by_hand_meets_the_same_row():
    model = tabular(vocab="ab")
    model.set_logits(model.encode("?a"), [5.0, 0.0, 0.0])
    out, _ = model.forward(batch_of(model, ["?", "?a"], [[0, 1], [1, 2]]))
    assert out["logprobs"][0, 1] == out["logprobs"][1, 0] < -5


def test_sampling_and_forward_make_no_rows():
    model = tabular(vocab="ab", init=1.0)
    model.sample([model.encode("x")], 8, SamplingParams(max_tokens=4))
    model.forward(batch_of(model, ["x"], [[0, 1, 2]]))
    assert not model.index


def test_noise_of_a_prefix_is_fixed_by_seed_and_prefix():
    one, two, other = (tabular(vocab="abc", init=1.5, seed=seed) for seed in (3, 3, 4))
    prefixes = [one.encode(f"{i}") for i in range(4000)]
    x = one.logits_at(prefixes)
    assert torch.equal(x.flip(0), two.logits_at(prefixes[::-1]))
    assert not torch.equal(x, other.logits_at(prefixes))
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1.5) < 0.05
    two.forward_backward(batch_of(two, ["7"], [[0]]), LossCall("policy_gradient"))  # a row that is made keeps its start
    assert torch.equal(x, two.logits_at(prefixes))


def test_growing_the_table_changes_no_number():
    """600 rows arrive in three lots, past 256 and 512; torch's AdamW on the whole table is the twin."""
    model = tabular(vocab="ab", head="scalar", init=1.0)
    prompts = [f"{i}" for i in range(600)]
    start = model.logits_at([model.encode(p) for p in prompts]).clone()
    twin = start.clone().requires_grad_()
    adam = torch.optim.AdamW([twin], lr=0.05, weight_decay=0.0)
    rng = np.random.default_rng(0)
    for step, until in enumerate((200, 300, 600, 600)):
        token, gain = rng.integers(0, 3, until), rng.normal(size=until)
        halves = (range(until // 2), range(until // 2, until))
        for half in halves:  # the table grows between two calls that add to the same gradient
            batch = batch_of(model, [prompts[i] for i in half], [[token[i]] for i in half], gain[list(half)][:, None])
            model.forward_backward(batch, LossCall("policy_gradient"))
        norm = model.optim_step(0.05, clip=None)["grad_norm"]
        adam.zero_grad()
        logp = torch.log_softmax(twin[:until], -1)[torch.arange(until), torch.as_tensor(token)]
        (-(torch.as_tensor(gain) * logp).sum()).backward()
        assert norm == pytest.approx(float(twin.grad.norm()), rel=1e-12), step
        adam.step()
    torch.testing.assert_close(model.logits_at([model.encode(p) for p in prompts]), twin.detach(), rtol=1e-12, atol=1e-14)
    assert not torch.equal(twin.detach(), start)


def test_max_rows_breaks_off_with_the_number():
    model = tabular(vocab="ab", max_rows=3)
    with pytest.raises(Broke, match="max_rows=3"):
        model.forward_backward(batch_of(model, ["x"], [[0, 0, 0, 0]]), LossCall("policy_gradient"))


def test_text():
    model = tabular(vocab="01+")
    assert model.encode("1+0").tolist() == [1, 2, 0]
    text, offsets = model.decode(np.array([1, 2, 0, model.end]))
    assert text == "1+0"
    assert offsets.tolist() == [[0, 1], [1, 2], [2, 3], [3, 3]]
    odd = model.encode("é\n1")
    assert odd.tolist() == [4 + ord("é"), 4 + ord("\n"), 1]
    assert model.decode(odd)[0] == "é\n1"
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": [{"type": "text", "text": "0"}]}]
    assert model.encode(chat).tolist() == model.encode("user: 1\nassistant: 0").tolist()
    assert model.decode(np.array([], dtype=int))[1].shape == (0, 2)


def test_named_tokens_are_words():
    model = tabular(vocab=["left", "right"])
    assert model.encode("left  right").tolist() == [0, 1]
    text, offsets = model.decode(np.array([0, 1, 1, 2]))
    assert text == "left right right"
    assert [text[a:b] for a, b in offsets] == ["left", " right", " right", ""]
    assert model.show(model.encode_answer("left right")) == "left right <end>"
    with pytest.raises(Refused, match="'up'"):
        model.encode_answer("left up")
    assert len({tuple(model.encode(prompt)) for prompt in ("ab c", "a bc", "abc", "left abc")}) == 4


@pytest.mark.parametrize(
    ("wrong", "say"),
    [
        ({"vocab": ""}, "vocabulary"),
        ({"vocab": "aa"}, "vocabulary"),
        ({"vocab": ["a", END]}, "vocabulary"),
        ({"vocab": ["a", ""]}, "vocabulary"),
        ({"bias": {"x": 1.0}}, "'x'"),
        ({"bias": {"1": float("inf")}}, "inf"),
        ({"init": float("nan")}, "finite"),
        ({"head": "classes"}, "'classes'"),
        ({"adapter": "lora"}, "'lora'"),
        ({"dtype": "int8"}, "'int8'"),
        ({"path": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_opened_is_refused(wrong, say):
    with pytest.raises(Refused, match=say):
        tabular(**wrong)


def test_a_saved_table_of_other_tokens_is_refused(tmp_path):
    tabular(vocab="ab").save(tmp_path)
    with pytest.raises(Refused, match="'b'"):
        tabular(path=tmp_path, vocab="ac")
    with pytest.raises(Refused, match="values"):
        tabular(path=tmp_path, vocab="ab", head="scalar")
    (tmp_path / "table.safetensors").write_bytes(b"no")
    with pytest.raises(Refused, match=r"table\.safetensors"):
        tabular(path=tmp_path, vocab="ab")


def test_a_saved_table_opens_with_its_start(tmp_path):
    model = tabular(vocab="ab", init=1.0, seed=5, bias={"a": 2.0})
    model.set_logits(model.encode("x"), [1.0, 2.0, 3.0])
    model.save(tmp_path)
    again = tabular(path=tmp_path, vocab="ab")
    at = [model.encode("x"), model.encode("y")]
    assert torch.equal(model.logits_at(at), again.logits_at(at))


def test_only_like_models_average():
    with pytest.raises(Refused, match="same vocabulary"):
        tabular(vocab="ab").copy(tabular(vocab="ac"))
    with pytest.raises(Refused, match="init and seed"):
        tabular(vocab="ab").copy(tabular(vocab="ab", init=1.0), tau=0.5)
    model, other = tabular(vocab="ab"), tabular(vocab="ab", init=1.0, seed=2)
    model.set_logits(model.encode("x"), [1.0, 2.0, 3.0])
    model.copy(other)
    at = [model.encode("x"), model.encode("unseen")]
    assert torch.equal(model.logits_at(at), other.logits_at(at))


def test_tokens_that_a_tool_wrote_may_be_outside_the_vocabulary():
    model = tabular(vocab="ab")
    row = [0, *model.encode("#"), 1, 2]
    batch = batch_of(model, ["x"], [row])
    with pytest.raises(Refused, match="`ids` of row 0 of the batch"):
        model.forward(batch)
    batch.mask[0, 1], batch.weights[0, 1] = False, 0.0
    out, _ = model.forward(batch)
    assert out["logprobs"][0].tolist() == pytest.approx([-np.log(3), 0.0, -np.log(3), -np.log(3)])
    model.forward_backward(batch, LossCall("policy_gradient"))
    assert model.optim_step(0.1)["grad_norm"] == pytest.approx(np.sqrt(3 * (4 + 1 + 1) / 9))  # (1 - p, -p, -p) at three rows


def test_exact_by_hand():
    """One prompt, tokens a and end, two tokens at most: a a, a <end>, <end>, with returns 1, 2, 0."""
    model = tabular(vocab="a")
    model.set_logits(model.encode("x"), np.log([0.25, 0.75]))
    model.set_logits(model.encode("xa"), np.log([0.6, 0.4]))
    truth = exact(model, "x", lambda text: {"aa": 1.0, "a": 2.0, "": 0.0}[text], max_tokens=2)
    assert truth.prob == pytest.approx({(0, 0): 0.15, (0, 1): 0.10, (1,): 0.75})
    assert truth.v[(0,)] == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert truth.value == pytest.approx(0.25 * 1.4)
    assert truth.q[(), 1] == 0
    assert truth.q[(), 0] == pytest.approx(1.4)
    assert truth.reach[(0,)] == pytest.approx(0.25)
    np.testing.assert_allclose(truth.advantages([0, 1]), [1.4 - 0.35, 2 - 1.4])
    np.testing.assert_allclose(truth.gradient[()], [0.25 * (1.4 - 0.35), 0.75 * (0 - 0.35)])


@pytest.fixture(scope="module")
def tree():
    model = tabular(vocab="abc", init=1.0, seed=1)
    rng = np.random.default_rng(7)
    gain = {text: float(rng.normal()) for k in range(4) for text in map("".join, itertools.product("abc", repeat=k))}
    return model, gain, exact(model, "x", gain, max_tokens=3, temperature=0.8)


def test_exact_is_consistent(tree):
    _, gain, truth = tree
    assert sum(truth.prob.values()) == pytest.approx(1, abs=1e-12)
    assert truth.value == pytest.approx(sum(p * truth.returns[ids] for ids, p in truth.prob.items()), abs=1e-12)
    mean = defaultdict(float)
    for (prefix, token), advantage in truth.advantage.items():
        mean[prefix] += truth.reach[(*prefix, token)] / truth.reach[prefix] * advantage
    assert max(map(abs, mean.values())) < 1e-12
    for ids in truth.prob:  # the advantages of a completion add up to its return less the value of the prompt
        assert truth.advantages(ids).sum() == pytest.approx(truth.returns[ids] - truth.value, abs=1e-12)
    assert set(gain.values()) == set(truth.returns.values())


def test_exact_gradient_is_that_of_autograd_through_the_backend(tree):
    """The policy gradient over every completion, weighted by its probability, with the exact advantages, is the exact gradient."""
    truth = tree[2]
    fresh = tabular(vocab="abc", init=1.0, seed=1)
    rows = list(truth.prob)
    batch = batch_of(fresh, ["x"] * len(rows), [list(ids) for ids in rows])
    for i, ids in enumerate(rows):
        batch.advantages[i, : len(ids)] = torch.from_numpy(truth.advantages(ids))
        batch.weights[i] *= truth.prob[ids]
    fresh.forward_backward(batch, LossCall("policy_gradient"), temperature=0.8)
    prompt = fresh.encode("x")
    for prefix, gradient in truth.gradient.items():
        row = fresh.index[np.concatenate([prompt, np.array(prefix, dtype=int)]).astype("<u4").tobytes()]
        np.testing.assert_allclose(-fresh.tables["logits"].grad[row], gradient, atol=1e-13)
    assert sum(np.abs(g).sum() for g in truth.gradient.values()) > 0.1


def test_exact_gradient_by_finite_differences(tree):
    _, gain, truth = tree
    other = tabular(vocab="abc", init=1.0, seed=1)
    for prefix, token in [((), 0), ((1,), 3), ((2, 0), 1)]:
        at = np.concatenate([other.encode("x"), np.array(prefix, dtype=int)])
        row = other.logits_at([at])[0].numpy()
        values = []
        for sign in (1, -1):
            other.set_logits(at, row + sign * 1e-5 * np.eye(4)[token])
            values.append(exact(other, "x", gain, max_tokens=3, temperature=0.8).value)
        other.set_logits(at, row)
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(truth.gradient[prefix][token], abs=1e-9)


def test_samples_come_with_the_exact_probabilities(tree):
    model, _, truth = tree
    n = 20_000
    (group,), _ = model.sample([model.encode("x")], n, SamplingParams(max_tokens=3, temperature=0.8, seed=11))
    count = defaultdict(int)
    for completion in group:
        count[tuple(completion.ids.tolist())] += 1
        assert completion.logprobs.sum() == pytest.approx(np.log(truth.prob[tuple(completion.ids.tolist())]), abs=1e-12)
    assert set(count) <= set(truth.prob)
    chi = sum((count[ids] - n * p) ** 2 / (n * p) for ids, p in truth.prob.items() if n * p > 5)
    cells = sum(n * p > 5 for p in truth.prob.values())
    assert chi < cells + 5 * np.sqrt(2 * cells)  # five standard deviations of chi-squared


def test_top_p_and_top_k_keep_the_smallest_set():
    model = tabular(vocab="abc")
    model.set_logits(model.encode("x"), np.log([0.2, 0.4, 0.1, 0.3]))

    def seen(**more) -> dict[int, float]:
        (group,), _ = model.sample([model.encode("x")], 8000, SamplingParams(max_tokens=1, **more))
        tokens = [int(c.ids[0]) for c in group]
        return {token: tokens.count(token) / 8000 for token in sorted(set(tokens))}

    assert seen(top_k=2) == pytest.approx({1: 4 / 7, 3: 3 / 7}, abs=0.03)
    assert seen(top_p=0.65) == pytest.approx({1: 4 / 7, 3: 3 / 7}, abs=0.03)  # 0.4 + 0.3 is the first that holds 0.65
    assert seen(top_p=0.75) == pytest.approx({0: 2 / 9, 1: 4 / 9, 3: 3 / 9}, abs=0.03)
    assert set(seen(top_p=1e-9)) == {1}
    assert seen() == pytest.approx({0: 0.2, 1: 0.4, 2: 0.1, 3: 0.3}, abs=0.03)


def test_exact_with_stop_texts():
    model = tabular(vocab="ab")
    truth = exact(model, "x", lambda text: float(text.endswith("b")), max_tokens=2, stop=("b",))
    assert truth.prob == pytest.approx({(1,): 1 / 3, (2,): 1 / 3, **{(0, token): 1 / 9 for token in range(3)}})
    assert truth.value == pytest.approx(1 / 3 + 1 / 9)


def test_exact_refuses_what_it_cannot_enumerate():
    model = tabular()
    with pytest.raises(Refused, match="more than 1000 prefixes of up to 3 tokens"):
        exact(model, "x", lambda text: 0.0, max_tokens=6, limit=1000)
    with pytest.raises(Refused, match="no return for the completion '1'"):
        exact(model, "x", {"0": 1.0}, max_tokens=1)
    with pytest.raises(Refused, match="temperature"):
        exact(model, "x", lambda text: 0.0, max_tokens=1, temperature=0)
    assert exact(model, "x", defaultdict(float, {"1": 1.0}), max_tokens=1).value == pytest.approx(1 / 11)
