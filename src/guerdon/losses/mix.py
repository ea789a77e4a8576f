"""How much of a step's loss is imitation: mu in [0, 1], times the terms `of: expert`; 1 - mu times those `of: policy`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guerdon.backends.base import LossCall
from guerdon.credit import rloo
from guerdon.losses.aggregate import row_mean
from guerdon.registry import Refused, find, registrar
from guerdon.rollouts import parallel
from guerdon.samples import Progress, Task, collate

if TYPE_CHECKING:
    from guerdon.samples import Batch, Context

mix = registrar("mix")
"""(progress) -> mu; or a class with that `__call__`, and hooks as every stateful piece may have.

Where `apart(progress)` of a class is true, the loop keeps the gradients of the terms `of: policy` and `of: expert`, with their factors 1 -
mu and mu, in buffers of these names until `update` (a need of `grad_dot`). Its `tasks`, if any, are held out: the loop dresses them as it
does all tasks, and refuses those that are trained on.
"""


def _share(name: str, **values: float) -> None:
    for parameter, value in values.items():
        if not 0 <= value <= 1:
            raise Refused(f"{name}({parameter}={value}): it is a share of imitation, within [0, 1].")


@mix
def fixed(progress: Progress, mu: float = 0.5) -> float:
    """mu, always. Raises Refused outside [0, 1]."""
    _share("fixed", mu=mu)
    return mu


@mix
def chord_mu(progress: Progress, peak: float = 0.1, valley: float = 0.1, warmup: int = 0, decay: int = 0) -> float:
    """Up to `peak` in `warmup` steps, linearly from 0, then by half a cosine down to `valley` in `decay` steps, where it stays.

    As published with weights that follow the token (`sft_phi`) it is 0.1 throughout; with plain `sft`, it decays. Source: arXiv:2508.11408.
    """
    _share("chord_mu", peak=peak, valley=valley)
    if progress.step < warmup:
        return peak * progress.step / warmup
    done = progress.step - warmup
    return valley if done >= decay else valley + (peak - valley) * 0.5 * (1 + math.cos(math.pi * done / decay))


@mix(needs=("grad_dot",))
class amft:
    """mu follows the gradient of what held-out tasks earn: more imitation where that would have helped them.

    After every `every`-th step theta' = theta - lr ((1 - mu) g_RL + mu g_SFT), answers to held-out tasks give g = grad -U(theta'), U their
    mean reward, and dU/dmu = lr <g, g_SFT - g_RL>, here the cosine of the two, so that `rate` does not hang on the scale of gradients.
    Every step

        mu <- clip(mu + rate * cosine [every `every` steps] + entropy_rate * (target - H), *bounds)

    H: mean of -log pi over the policy's own tokens; target None: that of the first step. An entropy below the target asks for imitation.
    tasks: of a world, as `tasks:` of a recipe, none of them trained on; `prompts` of them a time, with `samples` answers each.
    Metrics mix/mu, mix/slope (the cosine), mix/entropy. The optimiser's own scaling (AdamW) is not in the look-ahead.
    Source: arXiv:2508.06944; the sign of the entropy term as in the release, that of the gradient as it follows from U (there it is
    reversed).
    """

    def __init__(
        self,
        tasks: Any,
        mu: float = 0.5,
        every: int = 20,
        rate: float = 0.05,
        entropy_rate: float = 5e-4,
        target: float | None = None,
        bounds: tuple[float, float] = (0.05, 0.95),
        prompts: int = 8,
        samples: int = 8,
        max_tokens: int = 256,
    ) -> None:
        _share("amft", mu=mu, lower=bounds[0], upper=bounds[1])
        if not 0 < bounds[0] <= mu <= bounds[1] < 1:
            raise Refused(f"amft(mu={mu}, bounds={tuple(bounds)}): mu lies within its bounds, and these within 0 and 1, both left out.")
        use = {"use": tasks} if isinstance(tasks, str) else dict(tasks) if isinstance(tasks, Mapping) else None
        if use is None or "use" not in use:
            raise Refused("amft needs held-out `tasks`, as {use: arithmetic, n: 64, split: test} or {use: file, path: held-out.jsonl}.")
        self.tasks: list[Task] = find("env", use.pop("use")).fn(**use)
        self.mu, self.every, self.rate, self.entropy_rate, self.target = mu, every, rate, entropy_rate, target
        self.bounds, self.prompts, self.samples, self.max_tokens = bounds, prompts, samples, max_tokens

    def __call__(self, progress: Progress) -> float:
        return self.mu

    def apart(self, progress: Progress) -> bool:
        return progress.step % self.every == self.every - 1

    def update(self, batch: Batch, context: Context) -> dict[str, float]:
        found = {"mix/mu": self.mu}
        moved = 0.0
        sampled = batch.field("logprobs")
        own = (batch.weights > 0) & (batch.field("expert") == 0)[:, None] & ~sampled.isnan()
        if bool(own.any()):
            entropy = -float(sampled[own].mean())
            self.target = entropy if self.target is None else self.target
            moved += self.entropy_rate * (self.target - entropy)
            found["mix/entropy"] = entropy
        if self.apart(context.progress):
            found["mix/slope"] = self.slope(context, batch)
            moved += self.rate * found["mix/slope"]
        self.mu = min(max(self.mu + moved, self.bounds[0]), self.bounds[1])
        return found

    def slope(self, context: Context, batch: Batch) -> float:
        """The cosine of g and g_SFT - g_RL; 0 where one of the three is 0."""
        model = context.models["policy"]
        assert context.score is not None
        assert context.rng is not None
        order = context.rng.permutation(len(self.tasks))[: self.prompts]
        held = parallel(model, [self.tasks[i] for i in order.tolist()], self.samples, context, max_tokens=self.max_tokens)
        judged = collate(held, context.score(held), dtype=batch.weights.dtype)
        judged.advantages = rloo(judged)
        judged.weights = row_mean(judged)  # U is a mean over answers, and log pi of an answer a sum over its tokens
        _, usage = model.forward_backward(judged, LossCall("policy_gradient"))
        context.spend("update", usage)
        model.grad_keep("held_out")
        names = ("held_out", "expert", "policy")
        dot = {a + b: model.grad_dot(a, b) for i, a in enumerate(names) for b in names[i:]}
        if not all(dot[name * 2] for name in names):
            return 0.0
        p, e = 1 / (1 - self.mu), 1 / self.mu  # out of the buffers come g_RL and g_SFT
        both = e * dot["held_outexpert"] - p * dot["held_outpolicy"]
        size = e * e * dot["expertexpert"] - 2 * e * p * dot["expertpolicy"] + p * p * dot["policypolicy"]
        return both / math.sqrt(dot["held_outheld_out"] * size) if size > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"mu": self.mu, "target": self.target}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mu, self.target = state["mu"], state["target"]
