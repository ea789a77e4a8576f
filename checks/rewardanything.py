"""RewardAnything: one listwise judge, asked under a principle in words, follows principles that it was never trained on; BT cannot.

An answer is five features of five grades each (`short3 kind0 ...`); a principle wants more or less of some of them. A small judge samples a
grade of 1 to 5 for every answer of a list, and is trained by REINFORCE within groups of eight such verdicts (as GRPO does) on the accuracy
piece alone, under 8 principles. It is then asked through the reward `rewardanything`, in conversations, under 24 others. Bradley-Terry has
the same network without the principle, on the pooled preferences of the 8.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np

from guerdon.rewards import rewardanything
from guerdon.rewards.listwise_judge import LEAST, MOST, pair_reversal
from guerdon.samples import Context, Sample, Task

CLAIM = (
    "in every seed, under principles held out, the judge orders at least 80% of pairs rightly, Bradley-Terry on pooled preferences at most "
    "60%, and the judge asked under no principle at most 60%"
)
BASELINE = "Bradley-Terry on the pooled preferences of the same principles"
METHOD = "GRPO on the weighted pair reversal, reward rewardanything; without its key term, the principle: trained and asked under none"
SEEDS = (0, 1, 2)
FEATURES = ("short", "right", "kind", "plain", "funny")
F, GRADES, LIST, STEPS, LISTS, DRAWS = len(FEATURES), 5, 5, 250, 24, 8


def principles(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(8, F) to train on, in which every feature is wanted, unwanted and left alone, and (24, F) others; entries -1, 0, 1."""
    rng = np.random.default_rng(seed)
    every = np.array([p for p in itertools.product((-1, 0, 1), repeat=F) if 2 <= np.abs(p).sum() <= 3])
    while True:
        order = rng.permutation(len(every))
        chosen = every[order[:8]]
        if all(set(chosen[:, f]) == {-1, 0, 1} for f in range(F)):
            return chosen, every[order[8:32]]


def in_words(principle: np.ndarray) -> str:
    return "; ".join(f"{'more' if x > 0 else 'less'} {name}" for name, x in zip(FEATURES, principle, strict=True) if x) or "anything"


def scorer(seed: int, out: int) -> Any:
    """(principle (..., F), grades (..., F)) -> (..., out): each feature with what is wanted of it, added, then two layers."""
    import torch
    from torch import nn

    torch.manual_seed(seed)

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = nn.Embedding(F * 3 * GRADES, 64)
            self.rest = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, out))

        def forward(self, principle: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
            at = (torch.arange(F) * 3 + principle + 1) * GRADES + grades
            return self.rest(self.each(at).sum(-2))

    return Scorer()


def lists(rng: np.random.Generator, known: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n principles (n, F), lists of grades (n, LIST, F), and the consensus scores 1 to 5 (n, LIST)."""
    wanted, grades = known[rng.integers(len(known), size=n)], rng.integers(GRADES, size=(n, LIST, F))
    worth = (wanted[:, None] * (grades - 2)).sum(-1)
    reach = 2 * np.abs(wanted).sum(1, keepdims=True)
    return wanted, grades, np.clip(np.rint(3 + 2.5 * worth / reach), LEAST, MOST).astype(int)


def train_judge(known: np.ndarray, seed: int, blank: bool) -> Any:
    import torch

    net, rng = scorer(seed, MOST), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / STEPS)
        wanted, grades, gold = lists(rng, known, LISTS)
        shown = torch.from_numpy(np.zeros_like(wanted) if blank else wanted)[:, None].expand(-1, LIST, -1)
        drawn = torch.distributions.Categorical(logits=net(shown, torch.from_numpy(grades)))
        said = drawn.sample((DRAWS,))  # (draws, lists, answers)
        gained = torch.tensor([
            [pair_reversal(dict(enumerate(s)), dict(enumerate(g))) for s, g in zip(some, gold.tolist(), strict=True)]  # type: ignore[arg-type]
            for some in said.tolist()
        ])  # fmt: skip
        advantage = (gained - gained.mean(0)) / (gained.std(0) + 1e-4)
        optimizer.zero_grad()
        (-(advantage[..., None] * drawn.log_prob(said)).mean() - 0.003 * drawn.entropy().mean()).backward()
        optimizer.step()
    return net


def bradley_terry(known: np.ndarray, seed: int) -> Any:
    import torch

    net, rng = scorer(seed, 1), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / STEPS)
        _, grades, gold = lists(rng, known, LISTS * DRAWS)
        z = net(torch.zeros(LISTS * DRAWS, LIST, F, dtype=torch.long), torch.from_numpy(grades))[..., 0]
        better = torch.from_numpy(gold[:, :, None] > gold[:, None])
        optimizer.zero_grad()
        (-torch.nn.functional.logsigmoid(z[:, :, None] - z[:, None])[better].mean()).backward()
        optimizer.step()
    return net


def as_judge(net: Any) -> Any:
    """The net as a model that can be asked: it reads the principle and the answers in a conversation and answers in JSON, greedily."""
    import torch

    from guerdon.backends.scripted import Scripted

    def says(messages: list[dict[str, Any]], rng: np.random.Generator) -> str:
        text = messages[-1]["content"]
        asked = {name: 1 if how == "more" else -1 for how, name in re.findall(r"(more|less) (\w+)", text.split("\n")[0])}
        shown = {name: [int(d) for d in re.findall(r"\d", body)] for name, body in re.findall(r"<<<(model-\d+) \w+\n(.*)\n", text)}
        wanted = torch.tensor([asked.get(f, 0) for f in FEATURES])
        with torch.no_grad():
            chances = net(wanted.expand(len(shown), -1), torch.tensor(list(shown.values()))).softmax(-1).numpy()
        mean = chances @ np.arange(LEAST, MOST + 1)
        scores = {name: int(c.argmax()) + 1 for name, c in zip(shown, chances, strict=True)}
        rank = sorted(shown, key=lambda name: (-scores[name], -mean[list(shown).index(name)]))
        return f"<think>by {len(asked)} wishes</think>\n{json.dumps({'scores': scores, 'best-to-worst': rank})}"

    return Scripted(says)


def measure(variant: str, seed: int) -> dict[str, Any]:
    import torch

    from guerdon.scoring import Engine

    known, held = principles(seed)
    wanted, grades, gold = lists(np.random.default_rng((seed, 1)), held, 300)
    if variant == "baseline":
        net = bradley_terry(known, seed)
        with torch.no_grad():
            value = net(torch.zeros(*grades.shape, dtype=torch.long), torch.from_numpy(grades))[..., 0].numpy()
        place = -value
    else:
        judge = as_judge(train_judge(known, seed, variant == "ablated"))
        samples = [
            Sample(Task(str(i), "Write.", meta={"principle": in_words(0 * p if variant == "ablated" else p)}), body, group=i)
            for i, (p, rows) in enumerate(zip(wanted, grades, strict=True))
            for body in (" ".join(f"{name}{g}" for name, g in zip(FEATURES, row, strict=True)) for row in rows)
        ]  # fmt: skip
        with Engine(Context(models={"judge": judge}), workers=1) as engine:
            found = engine.score(rewardanything, samples)
        assert found.alive.all()
        value = found.total().reshape(gold.shape)
        place = np.array([entry["place"] for entry in found.evidence["listwise"]]).reshape(gold.shape)
    pairs = gold[:, :, None] > gold[:, None]
    d, p = value[:, :, None] - value[:, None], place[:, :, None] - place[:, None]
    right = (d > 0) | ((d == 0) & (p < 0))
    return {"value": round(float(right[pairs].mean()), 4), "ties count half": round(float(((d > 0) + 0.5 * (d == 0))[pairs].mean()), 4)}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    return all(m["value"] >= 0.8 and b["value"] <= 0.6 for b, m in zip(baseline, method, strict=True))
