"""Every registered credit on one large batch, beside verl's own functions; the forest; memory; credit's share of a run.

1,024 samples of up to 1,024 tokens (ragged: a tenth to all of them), 8 a group, 16 steps a sample, float32, 2 threads, the minimum of 20.
Rows of a group share prefixes at step borders, as a tree rollout's do, so that tree credit has a tree. Memory is the peak that a credit
allocates, as a multiple of the batch's (n, t) float32 tensor, on 256, 512 and 1,024 samples.
"""

from __future__ import annotations

import functools
import inspect
import json
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import Bars
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import guerdon.credit  # noqa: F401 - fills the registry
from guerdon import registry
from guerdon.samples import Batch, Grain, Part, Rewards
from guerdon.tree import forest

N, T, GROUP, STEPS, ROUNDS = 1024, 1024, 8, 16, 20
PEER = Path(__file__).parents[1] / ".bench" / "credit"
GROUP_BAR, OTHER_BAR, FOREST_BAR, SHARE_BAR = 0.002, 0.010, 0.050, 0.05


def rows(n: int, t: int, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Ragged token rows, those of a group sharing a random number of steps, and their lengths."""
    lengths = rng.integers(t // 10, t + 1, n)
    found = []
    for g in range(n // GROUP):
        trunk = rng.integers(0, 1000, t)
        for i in range(g * GROUP, (g + 1) * GROUP):
            row = rng.integers(0, 1000, lengths[i])
            shared = min(int(rng.integers(0, 5)) * t // STEPS, lengths[i])
            row[:shared] = trunk[:shared]
            found.append(row)
    return found, lengths


def make(n: int = N, t: int = T, tools: float = 0.0) -> Batch:
    """tools: the share of tokens that the policy did not write."""
    rng = np.random.default_rng(0)
    ids, lengths = rows(n, t, rng)
    group = np.repeat(np.arange(n // GROUP), GROUP)
    tree, node_of = forest(ids, group)
    inside = np.arange(t) < lengths[:, None]
    mask = inside & (rng.random((n, t)) >= tools)
    step_of = np.where(inside, np.arange(t) * STEPS // t, -1)
    steps = np.where(np.arange(STEPS) <= step_of.max(1)[:, None], rng.normal(size=(n, STEPS)), 0.0)
    state = np.where(np.arange(STEPS) <= step_of.max(1)[:, None], 0, 1)
    rewards = Rewards(Grain.of(rng.integers(0, 2, n)), Grain.of(steps, state))
    padded = np.zeros((n, t), dtype=np.int64)
    wide = np.full((n, t), -1, dtype=np.int64)
    wide[:, : node_of.shape[1]] = node_of
    for i, row in enumerate(ids):
        padded[i, : len(row)] = row
    of = torch.from_numpy
    return Batch(
        [torch.zeros(1, dtype=torch.long)] * n, of(padded), of(mask), of(lengths), of(step_of), of(wide), of(group), rewards, tree,
        torch.arange(n), torch.zeros(n, t), of(mask).float(), torch.zeros(0, 2, dtype=torch.long), {},
    )  # fmt: skip


def call_of(piece: registry.Piece, batch: Batch) -> Callable[[], Any]:
    """The credit on the batch with the grains and fields that it reads."""
    rng, shape = np.random.default_rng(1), tuple(batch.ids.shape)
    grains = piece.about.get("grains", ("outcome",))
    rewards = {name: grain for name, grain in batch.rewards.grains() if name in grains}
    parts = {}
    if "token" in grains and not rewards.keys() - {"outcome"}:
        rewards["token"] = Grain.of(rng.normal(size=shape), ~(np.arange(shape[1]) < batch.lengths.numpy()[:, None]))
    fields = {"expert": torch.zeros(shape[0]), "logprobs": -torch.rand(shape)}
    for need in piece.needs:
        if need == "values/*":
            parts = {"a": Part(Rewards(Grain.of(np.ones(shape[0]))), 0.5)}
            fields["values/a"] = torch.randn(shape)
        elif need not in fields:
            fields[need] = PER_SAMPLE[need](shape[0]) if need in PER_SAMPLE else torch.randn(shape)
    own = replace(
        batch,
        rewards=Rewards(**rewards, parts=parts, evidence=EVIDENCE[piece.name](shape[0]) if piece.name in EVIDENCE else {}),
        fields=fields,
    )
    params = PARAMETERS.get(piece.name, {})
    fn: Any = piece.fn(**params) if inspect.isclass(piece.fn) else functools.partial(piece.fn, **params)
    return lambda: fn(fresh(own))


def fresh(batch: Batch) -> Batch:
    """The same batch without what it has worked out about itself: every call moves the rewards into tensors anew."""
    return replace(batch)


PER_SAMPLE: dict[str, Callable[[int], torch.Tensor]] = {
    "budget": lambda n: torch.randint(1, 5, (n,)).float(),
    "thought": lambda n: torch.zeros(n),
    "exit": lambda n: torch.arange(n).float() % GROUP,
    "exit_tokens": lambda n: (torch.arange(n).float() % GROUP + 1) * (T // STEPS),
}
PARAMETERS: dict[str, dict[str, Any]] = {}
EVIDENCE: dict[str, Callable[[int], dict[str, Any]]] = {}
GROUP_ESTIMATORS = {"grpo", "dr_grpo", "rloo", "hbpo", "two_term", "gpg", "brpo", "pairwise", "s_grpo"}


def seconds(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


class Held(TorchDispatchMode):
    """Counts the bytes of tensors that live at a time, of those made inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                self._hold(x.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def peak(run: Callable[[], Any]) -> int:
    with Held() as held:
        run()
    return held.most


def peers(bars: Bars) -> None:
    """verl's outcome estimators and GAE on tensors of the same sizes, in a process of their own; a note where verl is not there."""
    done = subprocess.run([sys.executable, __file__, "--peer"], capture_output=True, text=True, check=False)
    if done.returncode:
        bars.note("verl", f"left out: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return
    for name, theirs in json.loads(done.stdout.strip().splitlines()[-1]).items():
        bars.note(f"verl {name} ms", theirs)
        bars.note(f"verl {name} over ours", theirs / bars.notes[f"{name} ms"])


def peer() -> int:
    """Prints the milliseconds of verl's functions."""
    sys.path.insert(0, str(PEER))  # first: verl's configuration needs another antlr than math-verify
    from verl.trainer.ppo import core_algos  # pyright: ignore[reportMissingImports]

    batch = make()
    mask = batch.mask.float()
    reward = torch.zeros_like(mask)
    reward[torch.arange(N), batch.lengths - 1] = batch.outcome
    index = np.repeat(np.arange(N // GROUP), GROUP)
    values = torch.randn(N, T)
    sides = {
        "grpo": lambda: core_algos.compute_grpo_outcome_advantage(reward, mask, index),
        "rloo": lambda: core_algos.compute_rloo_outcome_advantage(reward, mask, index),
        "reinforce_pp": lambda: core_algos.compute_reinforce_plus_plus_outcome_advantage(reward, mask, _Gamma()),
        "gae": lambda: core_algos.compute_gae_advantage_return(reward, values, mask, 1.0, 0.95),
    }
    print(json.dumps({name: seconds(run) * 1e3 for name, run in sides.items()}))
    return 0


class _Gamma:
    gamma = 1.0


def share_of_a_run(prompts: int, samples: int, tokens: int, credit: str, reward: str) -> float:
    """Credit's part of the seconds of a training step of the tiny policy; the batch has prompts x samples rows."""
    from guerdon.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        run = train(
            {
                "models": {"policy": {"path": "tiny"}},
                "tasks": {"use": "arithmetic", "n": 64},
                "reward": reward,
                "rollout": {"use": "parallel", "max_tokens": tokens},
                "credit": credit,
                "threads": 2,
                "train": {"steps": 4, "prompts": prompts, "samples": samples, "samples_every": 100, "checkpoint_every": 100},
            },
            folder=Path(folder) / "run",
        )
    steps = run.metrics[2:]
    return sum(s["seconds/credit"] for s in steps) / sum(s["seconds"] for s in steps)


def main() -> int:
    bars = Bars("credit", ("torch", "verl"))
    batch = make()
    ids = [row[:k].numpy() for row, k in zip(batch.ids, batch.lengths.tolist(), strict=True)]
    bars.bar("forest-seconds", seconds(lambda: forest(ids, batch.group.numpy())), FOREST_BAR, higher=False)
    for piece in registry.pieces("credit"):
        if not piece.where.startswith("guerdon."):
            continue
        run = call_of(piece, batch)
        took = seconds(run)
        bars.note(f"{piece.name} ms", took * 1e3)
        bars.bar(f"{piece.name}-seconds", took, GROUP_BAR if piece.name in GROUP_ESTIMATORS else OTHER_BAR, higher=False)
        small, large = (peak(call_of(piece, b)) / (len(b) * T * 4) for b in (batch.rows(torch.arange(N // 4)), batch))
        bars.bar(f"{piece.name}-memory-growth", large / max(small, 1e-9), 1.25, higher=False)
        bars.note(f"{piece.name} memory, (n, t) tensors", large)
    peers(bars)
    with_tools = make(tools=0.02)
    for name in ("gae", "min_form"):
        bars.note(f"{name} with tool tokens ms", seconds(call_of(registry.find("credit", name), with_tools)) * 1e3)
    for shape in ((16, 8, 6), (8, 8, 256)):
        for credit, reward in (("grpo", "arithmetic"), ("min_form", "arithmetic_steps")):
            if reward in registry.names("reward"):
                bars.bar(
                    f"share-{credit}-{shape[0] * shape[1]}x{shape[2]}", share_of_a_run(*shape, credit, reward), SHARE_BAR, higher=False
                )
    return bars.close()


if __name__ == "__main__":
    torch.set_num_threads(2)
    raise SystemExit(peer() if sys.argv[1:] == ["--peer"] else main())
