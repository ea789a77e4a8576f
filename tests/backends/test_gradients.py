"""The capabilities `grad_dot` and `embeds`, of every backend that offers them (`conftest.py` has the backends)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon import registry
from guerdon.backends.base import LossCall, loss_needs
from guerdon.registry import Refused
from guerdon.samples import Batch

PG, SFT = LossCall("policy_gradient"), LossCall("sft")


@pytest.fixture
def kept(case: Any) -> tuple[Any, dict[str, torch.Tensor], Batch]:
    """A model with the gradients `rl` and `sft` kept, and what they are."""
    model = case.open()
    if "grad_dot" not in model.capabilities:
        pytest.skip("this backend keeps no gradients")
    batch = case.mixed(model)
    case.gradient(model, batch, batch)  # a lazy table has its rows now
    known = {"rl": case.gradient(model, batch, call=PG)[0], "sft": case.gradient(model, batch, call=SFT)[0]}
    for name, call in (("rl", PG), ("sft", SFT)):
        model.forward_backward(batch, call)
        model.grad_keep(name)
    return model, known, batch


def test_inner_products_are_those_of_the_gradients(case: Any, kept: Any):
    model, known, _ = kept
    for a in known:
        for b in known:
            assert model.grad_dot(a, b) == pytest.approx(float(known[a] @ known[b]), rel=1e4 * case.close)


def test_keeping_leaves_no_gradient_and_adding_brings_it_back(case: Any, kept: Any):
    """A step of 0.3 rl + 2 sft is that of a twin who took the gradients in one pass; the buffers outlive it."""
    model, known, batch = kept
    assert all(p.grad is None or not p.grad.any() for p in case.params(model))
    model.grad_add("rl", 0.3)
    model.grad_add("sft", 2.0)
    wanted = 0.3 * known["rl"] + 2 * known["sft"]
    assert model.optim_step(0.01, clip=None)["grad_norm"] == pytest.approx(float(wanted.norm()), rel=1e4 * case.close)
    twin = case.open()
    case.gradient(twin, batch)
    twin.forward_backward(batch, [LossCall("policy_gradient", times=0.3), LossCall("sft", times=2.0)])
    twin.optim_step(0.01, clip=None)
    case.near(case.weights(model), case.weights(twin), 1e4)
    assert model.grad_dot("rl", "sft") == pytest.approx(float(known["rl"] @ known["sft"]), rel=1e4 * case.close)


def test_a_buffer_is_kept_over_and_may_be_empty(case: Any, kept: Any):
    model, known, batch = kept
    model.forward_backward(batch, SFT)
    model.grad_keep("rl")
    assert model.grad_dot("rl", "rl") == pytest.approx(float(known["sft"] @ known["sft"]), rel=1e4 * case.close)
    model.grad_keep("rl")
    assert model.grad_dot("rl", "sft") == 0


def test_a_table_that_grew_has_the_same_products(case: Any, kept: Any):
    model, known, _ = kept
    other = case.batch(model, [f"{i}*{j}*0" for i in range(10) for j in range(30)], [[3, 4]] * 300)
    new, _ = case.gradient(model, other)
    model.forward_backward(other, PG)
    model.grad_keep("new")
    assert model.grad_dot("sft", "sft") == pytest.approx(float(known["sft"] @ known["sft"]), rel=1e4 * case.close)
    same = len(new) == len(known["sft"])  # the rows that a table has for both are of other prefixes
    assert model.grad_dot("new", "sft") == pytest.approx(float(new @ known["sft"]) if same else 0.0, rel=1e4 * case.close)
    model.grad_add("sft")
    assert model.optim_step(0.0, clip=None)["grad_norm"] == pytest.approx(float(known["sft"].norm()), rel=1e4 * case.close)


def test_unknown_buffers_and_frozen_models_are_refused(case: Any, kept: Any):
    model, _, _ = kept
    for call in (lambda: model.grad_dot("rl", "stf"), lambda: model.grad_add("stf")):
        with pytest.raises(Refused, match=r"stf.*sft"):
            call()
    with pytest.raises(Refused, match="trainable"):
        case.open(trainable=False).grad_keep("rl")


# embeds


def of_tokens(out: dict[str, Any], batch: Batch):
    """A loss on the model's own embeddings: what `sft` is, by the further pass."""
    given = out["embeds"].embed(batch.ids)
    return -(batch.weights * out["embeds"].logprobs(given)).sum(), {}


def of_shifted(out: dict[str, Any], batch: Batch):
    """On inputs of which each is half the embedding of another token (0 is padding to transformers, and gets no gradient)."""
    given = 0.5 * out["embeds"].embed(batch.ids) + 0.5 * out["embeds"].embed(2 + (batch.ids + 1) % 5)
    logprobs = out["embeds"].logprobs(given)
    assert not logprobs[~batch.mask].any()
    return (batch.weights * (batch.advantages * logprobs + logprobs**2)).sum(), {}


@pytest.fixture
def further(monkeypatch: pytest.MonkeyPatch) -> None:
    for fn in (of_tokens, of_shifted):
        monkeypatch.setitem(registry._pieces["loss"], fn.__name__, registry.Piece("loss", fn.__name__, fn, ("embeds",)))


def test_a_pass_on_the_tokens_own_embeddings_is_the_pass(case: Any, further: None):
    model = case.open()
    batch = case.mixed(model)
    batch.mask[0, 0] = False  # a token of somebody else's, which still stands before the others
    batch.weights = batch.weights * batch.mask
    if "embeds" not in model.capabilities:
        with pytest.raises(Refused, match="embeds"):
            model.forward_backward(batch, LossCall("of_tokens"))
        return
    wanted, metrics = case.gradient(model, batch, call=SFT, temperature=0.7)
    found, same = case.gradient(model, batch, call=LossCall("of_tokens"), temperature=0.7)
    case.near(found, wanted, 1e3)
    assert same["loss"] == pytest.approx(metrics["loss"], rel=1e3 * case.close)
    _, plain = model.forward_backward(batch, SFT)
    _, more = model.forward_backward(batch, LossCall("of_tokens"))
    assert more.new - plain.new == int(batch.lengths.sum())
    assert more.prompt - plain.prompt == sum(len(p) for p in batch.prompts)
    with pytest.raises(Refused, match="embeds"):
        model.forward(batch, ("embeds",))


def test_any_split_of_a_further_pass_adds_up(case: Any, further: None):
    model = case.open()
    if "embeds" not in model.capabilities:
        pytest.skip("this backend takes no embeddings")
    batch, call = case.mixed(model), LossCall("of_shifted")
    whole, _ = case.gradient(model, batch, call=call)
    parts, _ = case.gradient(model, *(batch.rows(torch.tensor(rows)) for rows in ([1, 3, 5, 7], [6, 4, 2, 0])), call=call)
    assert whole.norm() > 0.1
    case.near(parts, whole, 1e3)


def test_gradient_of_a_further_pass_by_finite_differences(double: Any, further: None):
    case = double
    model = case.open()
    if "embeds" not in model.capabilities:
        pytest.skip("this backend takes no embeddings")
    batch, call = case.mixed(model), LossCall("of_shifted")
    assert loss_needs([call]) == ("logprobs", "embeds")
    model.forward_backward(batch, call)
    model.optim_step(0.05)  # away from adapters that start at 0
    analytic, _ = case.gradient(model, batch, call=call, temperature=0.7)
    params = case.params(model)
    direction = torch.randn(len(analytic), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shifted(by: float) -> float:
        with torch.no_grad():
            for p, d in zip(params, direction.split([p.numel() for p in params]), strict=True):
                p += by * d.reshape(p.shape)
        return case.gradient(model, batch, call=call, temperature=0.7)[1]["loss"]

    up = shifted(1e-6)
    down = shifted(-2e-6)
    assert (up - down) / 2e-6 == pytest.approx(float(analytic @ direction), rel=1e-5, abs=1e-6)
