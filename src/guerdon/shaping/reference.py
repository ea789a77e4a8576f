"""Shapes that measure a reward against what a reference model gets for the same prompt.

A learned reward is known up to a constant a prompt, and is trusted near the texts it was fitted on. Counted from the reference's own
rewards, zero means "as good as before"; squashed, there is less and less to gain from more of the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Rewards, Sample, State, Task
from guerdon.shaping.core import shape
from guerdon.shaping.squash import Kind, squashed


class AgainstReference(ABC):
    """State: the rewards that `samples` answers of `model` got to each task, asked once before the task is trained on, and saved with the
    checkpoint. A sample of a task without any such reward is failed."""

    def __init__(self, samples: int = 10, model: str = "reference", max_tokens: int = 256, temperature: float = 1.0) -> None:
        if samples < 1:
            raise Refused(f"{type(self).__name__}(samples={samples}): at least one answer of the reference is needed.")
        self.samples, self.model, self.max_tokens, self.temperature = samples, model, max_tokens, temperature
        self.known: dict[str, list[float]] = {}

    def prepare(self, tasks: Sequence[Task], score: Callable[[Sequence[Sample]], Rewards], context: Context) -> None:
        from guerdon.rollouts import parallel  # here: rollouts import backends, and these torch, which scoring does without

        policy = context.models[self.model]
        answers = parallel(policy, tasks, self.samples, context, max_tokens=self.max_tokens, temperature=self.temperature)
        rewards = score(answers)
        total, alive = rewards.total(), rewards.alive
        for i, sample in enumerate(answers):
            found = self.known.setdefault(sample.task.key, [])
            if alive[i]:
                found.append(float(total[i]))

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
        out = rewards.map(lambda g: g.value.copy())
        assert out.outcome is not None
        for i, sample in enumerate(samples):
            if not out.outcome.scored[i]:
                continue
            known = self.known.get(sample.task.key)
            if known:
                out.outcome.value[i] = self.value(float(out.outcome.value[i]), np.asarray(known))
            else:
                out.outcome.state[i], out.outcome.value[i] = State.FAILED, 0.0
                gathered = "" if self.known else "; they are gathered by a training run, before it begins a task"
                out.outcome.reason[(i,)] = f"no answer of {self.model!r} to task {sample.task.id!r} has a reward to compare with{gathered}"
        return out

    @abstractmethod
    def value(self, r: float, reference: np.ndarray) -> float:
        """The shaped value of a reward r, beside the reference's rewards (m,) for the same task."""

    def state_dict(self) -> dict[str, Any]:
        return {"known": self.known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known = dict(state["known"])


@shape(scope="sample", grains=("outcome",), changes_state=True)
class centred(AgainstReference):
    """r - mean of the reference's rewards for the prompt. Members of an ensemble need this before `min`: each has an offset of its own.
    Source: arXiv:2312.09244."""

    def value(self, r: float, reference: np.ndarray) -> float:
        return r - float(reference.mean())


@shape(scope="sample", grains=("outcome",), changes_state=True)
class par(AgainstReference):
    """Preference as reward: mean over the reference's rewards of sigmoid(slope * (r - reference - shift)).

    For a Bradley-Terry reward, slope 1 and shift 0, the probability that this answer beats one of the reference's: within (0, 1), steep
    where the policy starts, flat once it is ahead. Stands before a KL penalty. Its competitors of the same form: kind tanh, arctan or
    polynomial (see `squash`), and shift 3 (slow, then fast). Raises Refused for another kind. Source: arXiv:2502.18770, its released code,
    whose penalty on long answers is a reward of its own here (`length`).
    """

    def __init__(
        self, slope: float = 1.0, samples: int = 10, model: str = "reference", max_tokens: int = 256, temperature: float = 1.0,
        kind: Kind = "sigmoid", shift: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(samples, model, max_tokens, temperature)
        self.kind, self.slope, self.shift = kind, slope, shift
        squashed(np.zeros(1), kind, slope, shift)  # refuses a kind before the run

    def value(self, r: float, reference: np.ndarray) -> float:
        return float(squashed(r - reference, self.kind, self.slope, self.shift).mean())


@shape(scope="sample", grains=("outcome",), changes_state=True)
class log_sigmoid(AgainstReference):
    """log sigmoid(r - high), high the `quantile` (0.85) of the reference's rewards as of a normal distribution: mean + z * (std + 1e-5),
    std with n - 1 (0 of one answer).

    log P(good) where good means better than `high`: slope 1 for poor answers, flat for good ones. Several properties are ADDED,
    `(a | log_sigmoid) + (b | log_sigmoid)`: log P(good in every one), so that none buys another back. Source: arXiv:2402.00742; the normal
    quantile as in the released code of arXiv:2502.18770.
    """

    def __init__(
        self, quantile: float = 0.85, samples: int = 10, model: str = "reference", max_tokens: int = 256, temperature: float = 1.0
    ) -> None:
        super().__init__(samples, model, max_tokens, temperature)
        if not 0 < quantile < 1:
            raise Refused(f"log_sigmoid(quantile={quantile}): a quantile lies between 0 and 1.")
        self.z = NormalDist().inv_cdf(quantile)

    def value(self, r: float, reference: np.ndarray) -> float:
        spread = reference.std(ddof=1) if len(reference) > 1 else 0.0
        return -float(np.logaddexp(0.0, reference.mean() + self.z * (spread + 1e-5) - r))
