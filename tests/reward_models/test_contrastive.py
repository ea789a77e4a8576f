"""Token rewards from two requests, against the model's own log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.backends.tabular import tabular
from guerdon.registry import Refused
from guerdon.reward_models import contrastive
from guerdon.reward_models.contrastive import asked
from guerdon.samples import Context, Sample, State, Task
from guerdon.scoring import Engine

MODEL = tabular(vocab="abc", init=1.0, seed=3)


def answer(text: str, written: list[bool] | None = None) -> Sample:
    ids = MODEL.encode_answer(text)
    done = None if written is None else np.array(written)
    return Sample(Task("t", "q"), text, MODEL.encode("q"), ids, MODEL.decode(ids)[1], done, np.full(len(ids), -1.0), stop="end")


def score(expression, samples):
    with Engine(Context(models={"reference": MODEL})) as engine:
        return engine.score(expression, samples)


def test_sigmoid_of_the_log_ratio_less_a_half_and_nothing_for_the_end():
    samples = [answer("abca"), answer("c", [False, True]), answer("bb", [True, False, True])]
    grain = score(contrastive(better="+{prompt} {answer}", worse="-{prompt}"), samples).token
    assert grain is not None
    for row, sample in enumerate(samples):
        assert sample.ids is not None
        for t, token in enumerate(sample.ids.tolist()):
            if sample.written is not None and not sample.written[t]:
                assert grain.state[row, t] == State.ABSTAINED
                continue
            p = []
            for prompt in (f"+q {sample.text}", "-q"):
                logits = MODEL.logits_at([np.concatenate([MODEL.encode(prompt), sample.ids[:t]])])[0].numpy()
                p.append(np.exp(logits[token]) / np.exp(logits).sum())
            expected = 0.0 if token == MODEL.end else p[0] / (p[0] + p[1]) - 0.5
            assert grain.value[row, t] == pytest.approx(expected, abs=1e-9)
    assert np.abs(grain.value).max() > 0.01


def test_where_the_texts_stand():
    assert asked("{answer}", "done", "A {prompt} B {answer}") == "A {answer} B done"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert asked(chat, "x", "{prompt}!{answer}") == [chat[0], {"role": "user", "content": "q!x"}]
    with pytest.raises(Refused, match="message of the user"):
        asked(chat[:1], "x", "{prompt}")
    with pytest.raises(Refused, match="two different texts"):
        contrastive(better="{prompt}", worse="{prompt}")
