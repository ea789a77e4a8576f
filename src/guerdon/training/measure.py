"""What a step measures, as plain numbers under the names of `metrics.py`. A value that cannot be measured is left out, never 0."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.samples import HOSTILE, Rewards, Sample, State
from guerdon.training import metrics as m

if TYPE_CHECKING:
    from guerdon.samples import Batch
    from guerdon.training.loop import Gathered
    from guerdon.training.run import Run, Running


def of_samples(run: Run, stage: Running, found: Gathered, step: int) -> dict[str, Any]:
    """Rewards, passes, lengths and verdicts over every sample of the step, those that curation left out too; demonstrations, of which the
    policy wrote nothing, are counted only where there is nothing else."""
    n = len(found.samples)
    own = [i for i, s in enumerate(found.samples) if s.logprobs is not None] or range(n)
    samples, rewards = [found.samples[i] for i in own], found.rewards.rows(own)
    alive, total = rewards.alive, rewards.total()
    group = np.array([s.group for s in samples])
    out: dict[str, Any] = {
        m.SAMPLES: n,
        m.LENGTH: float(np.mean([len(s.ids) if s.ids is not None else 0 for s in samples])),
        m.TRUNCATED: float(np.mean([s.stop == "length" for s in samples])),
        m.HOSTILE: float(rewards.hostile.mean()),
        m.ABSTAINED: float((rewards.state == State.ABSTAINED).mean()),
        m.FAILED: float(rewards.failed.mean()),
        m.REFILLS: found.refills,
        m.DROPPED: n - len(found.rows),
        m.SHORT: max(0, stage.spec.train.prompts * stage.spec.train.samples - len(found.rows)),
        m.SAMPLE_AGE: float(np.mean([run.models["policy"].version - s.version for s in samples])),
    }
    if alive.any():
        out |= {m.REWARD: float(total[alive].mean()), m.REWARD_STD: float(total[alive].std())}
        passed = run.passes(stage, samples, rewards, f"{stage.index}/{step}/correct")
        out[m.PASS_1] = float(passed.mean())
        out[m.PASS_K] = float(np.mean([passed[group == g].any() for g in np.unique(group)]))
        spread = [np.ptp(total[(group == g) & alive]) == 0 for g in np.unique(group[alive])]
        out[m.ZERO_SPREAD] = float(np.mean(spread))
    for name, part in rewards.parts.items():
        mean = mean_of(part.rewards)
        if mean is not None:
            out[f"{m.REWARD}/{name}"] = mean
    reasons = count_reasons(rewards)
    if reasons:
        out[m.REASONS] = reasons
    known = [s.logprobs[~np.isnan(s.logprobs)] for s in samples if s.source == "policy" and s.logprobs is not None]
    if sum(map(len, known)):  # what tools and hints wrote has none
        out[m.ENTROPY] = -float(np.concatenate(known).mean())
    return out


def mean_of(rewards: Rewards) -> float | None:
    """Mean over samples with a verdict, None where there is none."""
    alive = rewards.alive
    return float(rewards.total()[alive].mean()) if alive.any() else None


def count_reasons(rewards: Rewards) -> dict[str, int]:
    """How many samples failed, abstained or were hostile, by reason; digits are folded so that like reasons count together."""
    counts: Counter[str] = Counter()
    state, hostile = rewards.state, rewards.hostile
    for i in np.flatnonzero((state != State.SCORED) | hostile).tolist():
        why = rewards.why(i)
        kind = HOSTILE if hostile[i] else State(int(state[i])).name.lower()
        counts[re.sub(r"\d+", "#", why if why.startswith(kind) else f"{kind}: {why}")[:200]] += 1
    return dict(counts.most_common(20))


def of_batch(batch: Batch) -> dict[str, Any]:
    """Of what was trained on."""
    if "values" not in batch.fields or "returns" not in batch.fields:
        return {}
    live = batch.weights > 0
    target, value = batch.fields["returns"][live].double(), batch.fields["values"][live].double()
    variance = float(target.var()) if len(target) > 1 else 0.0
    return {m.EXPLAINED_VARIANCE: 1 - float((target - value).var()) / variance} if variance > 0 else {}


def passed(total: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """A pass is an outcome above 0.5."""
    return alive & (total > 0.5)


def hacked(history: list[dict[str, Any]], now: dict[str, Any], samples: int) -> bool:
    """The proxy stands higher than at the gold's best evaluation, and the gold has fallen by more than two standard errors.

    Standard error of a mean of `samples` values in [0, 1]: sqrt(g (1 - g) / samples), at least 1 / samples.
    """
    if m.EVAL_GOLD not in now or not history:
        return False
    best = max(history, key=lambda values: values[m.EVAL_GOLD])
    g = min(1.0, max(0.0, best[m.EVAL_GOLD]))
    error = max((g * (1 - g) / samples) ** 0.5, 1 / samples)
    return now[m.EVAL_REWARD] > best[m.EVAL_REWARD] and now[m.EVAL_GOLD] < best[m.EVAL_GOLD] - 2 * error


def evaluation(samples: list[Sample], rewards: Rewards, ok: np.ndarray, gold: Rewards | None) -> dict[str, Any]:
    out: dict[str, Any] = {
        m.EVAL_ACCURACY: float(ok.mean()),
        m.EVAL_LENGTH: float(np.mean([len(s.ids) if s.ids is not None else 0 for s in samples])),
    }
    for name, of in ((m.EVAL_REWARD, rewards), (m.EVAL_GOLD, gold)):
        mean = None if of is None else mean_of(of)
        if mean is not None:
            out[name] = mean
    return out
