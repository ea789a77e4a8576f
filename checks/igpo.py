"""IGPO: paying each lookup what it added to the belief in the answer, where the answer alone is hardly ever right.

A chain of three lookups among 64 keys (env `lookup`). The policy is a table with a row for where in the chain it stands: at first it asks
for anything, seldom for the key it needs, and its answers are nine parts chance and one part what the chain's rule leaves possible.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guerdon.backends.base import backend
from guerdon.backends.tabular import CAPABILITIES, END, Tabular
from guerdon.credit import grpo, igpo
from guerdon.envs.lookup import ANSWER, QUERY, chance, lookup, words
from guerdon.rollouts import multi_turn
from guerdon.samples import Context, collate
from guerdon.scoring import Engine

CLAIM = (
    "at first more than 80% of groups have no advantage with GRPO and less than 10% with IGPO; the useful lookups of wrong answers have a "
    "mean advantage above 0; what the turns of a sample are paid adds up to b_(T-1) - b_0 to 1e-6; after 80 steps IGPO is right at least "
    "0.2 more often than GRPO (every seed)"
)
BASELINE = "grpo on the answer, same rollouts"
METHOD = "belief, igpo; without its key term, the information gain: igpo on the answer alone"
SEEDS = (0, 1, 2)
KEYS, HOPS, REACH, STARTS, GROUPS = 64, 3, 4, 4, 400
GAIN = "lookup + belief(template='ANSWER {answer}')"
ROLL = {"tool": "lookup", "stop": (), "turn_tokens": 2, "max_turns": HOPS + 1, "max_tokens": 3 * HOPS + 2}


def standing(said: Sequence[str]) -> tuple[int, int, str]:
    """(key where the chain stands, lookups of it done, the word that the turn began with or "") of prompt, turns and replies."""
    at, done, turn = int(said[0][1:]), 0, list(said[3:])
    while len(turn) >= 3:
        if turn[0] == QUERY and turn[1] == f"k{at}" and turn[2] != "none" and done < HOPS:
            at, done = int(turn[2][1:]), done + 1
        turn = turn[3:]
    return at, done, turn[0] if turn else ""


class Seeker(Tabular):
    """One row of logits for each standing."""

    @functools.cache  # noqa: B019 (one model a measurement)
    def _state(self, key: bytes) -> bytes:
        said = "".join(self.names[i] + " " if i < self.end else chr(i - len(self.names)) for i in np.frombuffer(key, dtype="<u4").tolist())
        return repr(standing(said.replace(f"{HOPS} hops", f" {HOPS} hops ").split())).encode()

    def _look(self, keys: Sequence[bytes]) -> dict[str, torch.Tensor]:
        return super()._look([self._state(key) for key in keys])

    def _rows(self, keys: Sequence[bytes]) -> torch.Tensor:
        return super()._rows([self._state(key) for key in keys])


@backend(capabilities=CAPABILITIES)
def seeker(path: str | None = None, trainable: bool = True) -> Seeker:
    """Asks in three turns of four, for the right key three times in ten; answers by the rule one time in ten; else anything."""
    names = [*words(KEYS), END]
    keys = np.array([f"k{j}" for j in range(KEYS)])
    at_word = {name: i for i, name in enumerate(names)}

    @functools.cache
    def start(key: bytes) -> np.ndarray:
        at, done, word = eval(key)  # our own repr of a standing
        p = np.full(len(names), 1e-9)
        if not word:
            p[[at_word[QUERY], at_word[ANSWER]]] = 0.75, 0.25
        else:
            known = chance(at, HOPS - done, KEYS, REACH) if word == ANSWER else [float(j == at) for j in range(KEYS)]
            share = 0.1 if word == ANSWER else 0.3
            p[[at_word[k] for k in keys]] += share * np.array(known) + (1 - share) / KEYS
        return np.log(p)

    model = Seeker(names, " ", False, trainable, 200_000, start)
    if path is not None:
        model.load(Path(path))
    return model


def at_first(credit: Any, reward: str, seed: int) -> dict[str, float]:
    """Of 400 groups at first: those without any advantage, what useful lookups of wrong answers get, what does not add up."""
    model = seeker()
    context = Context(models={"policy": model}, rng=np.random.default_rng(seed))
    samples = multi_turn(model, lookup(GROUPS, KEYS, HOPS, REACH, STARTS, seed=seed), 8, context, **ROLL)
    with Engine(context, workers=1) as engine:
        rewards = engine.score(reward, samples)
        believed = engine.score("belief(template='ANSWER {answer}')", samples).step
    assert believed is not None
    assert rewards.outcome is not None
    batch = collate(samples, rewards, dtype=torch.float64)
    a = credit(batch).numpy()
    silent = ~np.array([a[8 * g : 8 * g + 8].any() for g in range(GROUPS)])
    useful, gaps = [], []
    for i, s in enumerate(samples):
        said = [s.task.meta["start"], "", ""]
        ends = []
        for (first, _), turn, reply in zip(s.spans["turn"], s.cut("turn"), [*s.meta["replies"], ""], strict=False):
            at, done, _ = standing(said)
            ends.append(chance_of(model, s, said))
            if turn.split() == [QUERY, f"k{at}"] and done < HOPS and not rewards.outcome.value[i]:
                useful.append(a[i, first])
            said += [*turn.split(), reply]
        gaps.append(abs(believed.value[i].sum() - (ends[-1] - ends[0])))
    return {"silent groups": float(silent.mean()), "useful lookups": float(np.mean(useful)), "gap": float(max(gaps))}


def chance_of(model: Seeker, sample: Any, said: Sequence[str]) -> float:
    """The chance of the right answer, were it given after what was said."""
    at, done, _ = standing(said)
    p = np.exp(model.start(repr((at, done, ANSWER)).encode()))
    return float(p[model.ids[sample.task.reference]] / p.sum())


def measure(variant: str, seed: int) -> dict[str, Any]:
    from guerdon.training.run import train

    reward, credit = {"baseline": ("lookup", grpo), "method": (GAIN, igpo), "ablated": ("lookup", igpo)}[variant]
    tasks = {"use": "lookup", "n": 2000, "keys": KEYS, "hops": HOPS, "reach": REACH, "starts": STARTS, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            seed=seed, threads=1, models={"policy": {"backend": "seeker"}}, tasks=tasks, reward=reward, correct="lookup",
            rollout={"use": "multi_turn", **ROLL, "stop": []}, credit=credit.__name__, loss={"use": "ppo_clip"},
            train={"steps": 80, "prompts": 16, "samples": 8, "lr": 0.1, "samples_every": 1000, "checkpoint_every": 1000},
            eval={"tasks": {**tasks, "n": 128, "seed": 100}, "every": 80, "samples": 4, "temperature": 1.0}, folder=Path(folder) / "run",
        )  # fmt: skip
    found = [row["eval/pass@1"] for row in run.metrics if "eval/pass@1" in row]
    return {"value": found[-1], "before": found[0]} | at_first(credit, reward, seed)


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    signal = all(b["silent groups"] > 0.8 and m["silent groups"] < 0.1 and m["useful lookups"] > 0 for b, m in pairs)
    return signal and all(m["gap"] < 1e-6 for m in method) and all(m["value"] >= b["value"] + 0.2 for b, m in pairs)
