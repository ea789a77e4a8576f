"""How the conformance suite opens each backend. A new one joins by an entry in CASES."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import guerdon.losses  # noqa: F401 (fills the registry)
from guerdon import registry
from guerdon.backends.base import LossCall, SamplingParams
from guerdon.samples import Batch, Grain, Rewards, Sample, Task, collate

CHARACTERS = "0123456789+-*=\n "
PG = LossCall("policy_gradient")


@dataclass(frozen=True)
class Case:
    """One way to open a backend, what the suite must know of its insides, and the suite's tools."""

    backend: str
    open: Callable[..., Any]
    """(seed=0, head=None, trainable=True) -> Model with random weights over CHARACTERS and an end token."""
    params: Callable[[Any], list[torch.Tensor]]
    """What the optimiser moves."""
    vocabulary: Callable[[Any], int]
    end: Callable[[Any], int]
    close: float = 1e-9
    """How near two ways to one log-probability come."""
    double: bool = True
    prompts = ("1+2=", "7", "12*3-4=", "5-5=")

    def near(self, a: Any, b: Any, times: float = 1.0) -> None:
        tolerance = times * self.close
        torch.testing.assert_close(*(torch.as_tensor(x, dtype=torch.float64) for x in (a, b)), rtol=tolerance, atol=tolerance)

    def sample(self, model: Any, n: int = 6, prompts: Sequence[str] = prompts, max_tokens: int = 5, seed: int = 3, **more: Any) -> Any:
        params = SamplingParams(max_tokens, seed=seed, **more)
        return model.sample([model.encode(p) for p in prompts], n, params)

    def offered(self, model: Any) -> tuple[str, ...]:
        return ("logprobs", *(name for name in ("entropy", "logits", "values", "hidden") if name in model.capabilities))

    def batch(self, model: Any, prompts: Sequence[str], rows: Sequence[Sequence[int]], seed: int = 0) -> Batch:
        """Rows with random advantages and weights."""
        samples = [
            Sample(Task(str(i), prompt), "", prompt_ids=model.encode(prompt), ids=np.array(row, dtype=np.int64))
            for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
        ]
        batch = collate(samples, Rewards(outcome=Grain.of(np.zeros(len(rows)))), dtype=torch.float64)
        random = torch.Generator().manual_seed(seed)
        batch.advantages = torch.randn(batch.ids.shape, generator=random, dtype=torch.float64)
        batch.weights = batch.weights * (0.5 + torch.rand(batch.ids.shape, generator=random, dtype=torch.float64))
        return batch

    def mixed(self, model: Any, seed: int = 0) -> Batch:
        """Prompts shared and not, of several lengths; answers of 1 to 6 tokens, with and without the end token."""
        rng = np.random.default_rng(seed)
        end = self.end(model)
        free = [token for token in range(self.vocabulary(model)) if token != end]
        rows = [rng.choice(free, size=k).tolist() for k in (3, 6, 1, 4, 2, 5, 1, 3)]
        rows[2], rows[1][-1], rows[4][-1] = [end], end, end
        return self.batch(model, [self.prompts[i] for i in (0, 0, 1, 0, 2, 3, 2, 2)], rows, seed)

    def every_token(self, model: Any, prompt: str) -> Batch:
        """One-token answers, one a token of the vocabulary."""
        v = self.vocabulary(model)
        return self.batch(model, [prompt] * v, [[token] for token in range(v)])

    def weights(self, model: Any) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1).double() for p in self.params(model)])

    def gradient(self, model: Any, *batches: Batch, call: Any = PG, temperature: float = 1.0) -> tuple[torch.Tensor, dict[str, float]]:
        """Of all batches together, as the backend adds it up, and the sums of their metrics. The model is left without gradient."""
        for p in self.params(model):
            p.grad = None
        totals: dict[str, float] = {}
        for batch in batches:
            metrics, _ = model.forward_backward(batch, call, temperature)
            totals = {name: totals.get(name, 0.0) + x for name, x in metrics.items()}
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params(model)]
        for p in self.params(model):
            p.grad = None
        return torch.cat([x.reshape(-1).double() for x in found]), totals

    def train(self, model: Any, steps: range) -> None:
        """Each step has prompts of its own, so that a lazy table grows."""
        for step in steps:
            model.forward_backward(self.mixed(model, seed=step), PG)
            own = [self.prompts[step % 4] + str(step)] * 3
            model.forward_backward(self.batch(model, own, [[3, 4], [5], [6, 7, 8]], seed=step), PG)
            model.optim_step(0.02, clip=1.0, weight_decay=0.01)


def tabular(close: float = 1e-9, double: bool = True, **more: Any) -> Case:
    def open_tabular(**role: Any) -> Any:
        return registry.find("backend", "tabular").fn(vocab=CHARACTERS, init=1.5, **more, **role)

    return Case("tabular", open_tabular, lambda m: list(m.tables.values()), lambda m: len(m.names), lambda m: m.end, close, double)


@functools.cache
def transformer(seed: int) -> tuple[Any, Any]:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(["<end>", "<unk>", *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    characters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters, eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    torch.manual_seed(seed)
    size: dict[str, Any] = dict(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    )
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, bos_token_id=None, eos_token_id=0, pad_token_id=0, **size)
    return LlamaForCausalLM(config).double(), tokenizer


def local(close: float = 1e-9, double: bool = True, dtype: str = "float64", **more: Any) -> Case:
    def open_local(seed: int = 0, **role: Any) -> Any:
        base = transformer(0 if "adapter" in more else seed)  # an adapter's checkpoint is for one base model
        return registry.find("backend", "local").fn(base, dtype=dtype, device="cpu", seed=seed, **more, **role)

    def params(model: Any) -> list[torch.Tensor]:
        return [p for p in model._weights().values() if p.requires_grad]

    return Case("local", open_local, params, lambda m: m.vocabulary, lambda m: int(m.tokens.ends[0]), close, double)


CASES = {
    "tabular": tabular(),
    "tabular-float32": tabular(1e-5, False, dtype="float32"),
    "local": local(),
    "local-split": local(micro_tokens=12, cache_tokens=40, prefix_sharing=False),
    "local-float32": local(1e-4, False, "float32"),
    "local-lora": local(adapter={"r": 2}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, probes: None) -> Case:
    return CASES[request.param]


@pytest.fixture(params=[name for name, found in CASES.items() if found.double])
def double(request: pytest.FixtureRequest, probes: None) -> Case:
    """The cases in float64, for finite differences."""
    return CASES[request.param]


@pytest.fixture
def cases() -> dict[str, Case]:
    return CASES


def of_hidden(out: dict[str, torch.Tensor], batch: Batch):
    return (batch.weights * batch.advantages * out["hidden"].sum(-1)).sum(), {}


def of_values(out: dict[str, torch.Tensor], batch: Batch):
    return (batch.weights * ((out["values"] - batch.advantages) ** 2 + 0.1 * out["entropy"])).sum(), {"tokens": batch.weights.sum()}


def of_pairs(out: dict[str, torch.Tensor], batch: Batch):
    """A pairwise loss, which sees whole pairs only where units are kept together."""
    score = (batch.weights * out["logprobs"]).sum(1)
    assert len(batch.pairs) * 2 == len(batch), "a pair was split"
    return -torch.nn.functional.logsigmoid(score[batch.pairs[:, 0]] - score[batch.pairs[:, 1]]).sum(), {"pairs": len(batch.pairs)}


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of the suite's own, which no other suite shall see."""
    for fn, needs in ((of_hidden, ("hidden",)), (of_values, ("values", "entropy")), (of_pairs, ())):
        monkeypatch.setitem(registry._pieces["loss"], fn.__name__, registry.Piece("loss", fn.__name__, fn, needs))
