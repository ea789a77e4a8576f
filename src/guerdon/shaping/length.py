"""Length rewards on top of a reward for correctness: how much shorter may an answer get before it is wrong?

Each stands on an outcome reward in which a value above 0.5 is a right answer: `math | laser(target=4096)`. A length is the number of tokens
of the sample that the policy wrote; `unit="characters"` counts those of its text instead, for rows of a file, which have no tokens. Without
tokens a sample abstains. Samples that are not scored are in no group's accuracy, mean or extreme.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Context, Grain, Rewards, Sample, State
from guerdon.shaping.core import shape
from guerdon.shaping.normalise import group_rows
from guerdon.shaping.schedule import weight as schedule
from guerdon.shaping.squash import sigmoid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Unit = Literal["tokens", "characters"]
UNKNOWN = "no tokens in this sample; use unit='characters'"


def sizes(samples: Sequence[Sample], unit: Unit = "tokens") -> Float[np.ndarray, " n"]:
    """The length of each sample, NaN where it has no tokens to count."""
    if unit == "characters":
        return np.array([float(len(s.text)) for s in samples])
    return np.array([np.nan if s.ids is None else float(len(s.ids) if s.written is None else np.sum(s.written)) for s in samples])


def reshaped(
    rewards: Rewards,
    samples: Sequence[Sample],
    unit: Unit,
    value: Callable[[Float[np.ndarray, " n"], Bool[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]], np.ndarray],
) -> Rewards:
    """`value(old, right, length, known)` of the outcome; samples without a length abstain, known are those with one and a score."""
    g = rewards.outcome
    assert g is not None
    length = sizes(samples, unit)
    without = g.scored & np.isnan(length)
    known = g.scored & ~without
    state = np.where(without, State.ABSTAINED, g.state)
    reason = g.reason | {(int(i),): UNKNOWN for i in np.flatnonzero(without)}
    return Rewards(outcome=Grain.of(value(g.value, known & (g.value > 0.5), np.nan_to_num(length), known), state, reason))


def z_score(length: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """(L - mean) / (std + 1e-6), std of the population; 0 for equal lengths and for one alone."""
    return (length - length.mean()) / (length.std() + 1e-6)


# --- a target length -------------------------------------------------------------------------------------------------------------

Form = Literal["reward", "penalty", "hybrid"]


def step_reward(
    value: np.ndarray, right: np.ndarray, length: np.ndarray, target: np.ndarray | float, bonus: float, form: Form, wrong: float | None
) -> np.ndarray:
    """See `laser`; target (n,) or one for all."""
    out = value if wrong is None else np.where(right, value, wrong)
    if form != "penalty":
        out = out + bonus * (right & (length <= target))
    return out - bonus * (right & (length > target)) if form != "reward" else out


@shape(scope="sample", grains=("outcome",), changes_state=True, example={"target": 3})
def laser(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    target: int,
    bonus: float = 0.5,
    form: Literal["reward", "penalty", "hybrid"] = "reward",
    wrong: float | None = -0.5,
    unit: Literal["tokens", "characters"] = "tokens",
) -> Rewards:
    """A right answer keeps its value, a wrong one gets `wrong` (its own with None), and the length of right ones counts.

    form "reward": + bonus where L <= target.  "penalty": - bonus where L > target.  "hybrid": both. Wrong answers get no length reward.
    Source: arXiv:2505.15612 (LASER; targets of 2048, 4096, 8192 there), its released code.
    """
    return reshaped(rewards, samples, unit, lambda value, right, length, _: step_reward(value, right, length, target, bonus, form, wrong))


BANDS = ("low", "medium", "high")


def band(right: int, count: int) -> str:
    """high: two thirds of a group's answers or more are right.  medium: a third or more.  low: fewer."""
    return BANDS[(3 * right >= count) + (3 * right >= 2 * count)]


@shape(scope="group", grains=("outcome",), changes_state=True)
class laser_d:
    """LASER with a target for each of three bands of difficulty, which follows the policy: `math | laser_d`.

    A prompt's band is the accuracy of its group: high from 2/3, medium from 1/3, low below. What is observed (`monitor`: the batches of
    training, or of evaluation, the last `window` of them) sets the target of a band: the smallest l in {lower, lower + step .. upper}
    with floor(P_l n_band) >= 1, P_l the share of the band's answers, right and wrong, that have l tokens or fewer, n_band = floor(2n/3),
    floor(n/3) or 1: within l tokens one right answer is still expected at the band's least accuracy. Where no l will do there is no limit
    (the released code takes the batch's longest answer, which is the same). Before the first observation every target is `target`.
    explore (LASER-DE): a wrong answer longer than its target gets + bonus too, unless it repeats itself (`repeats`).
    n: answers a prompt. Other parameters as in `laser`. State: targets and the window. An evaluation of fewer than three answers a prompt
    knows no medium band. Band edges are those of the released reward; its monitor puts 1/3 and 2/3 themselves one band lower.
    Source: arXiv:2505.15612 (lower 1024 to 4096, step 1024, upper 16384, n 8), its released code.
    """

    def __init__(
        self, target: int = 4096, lower: int = 1024, step: int = 1024, upper: int = 16384, n: int = 8, bonus: float = 0.5,
        form: Literal["reward", "penalty", "hybrid"] = "reward", explore: bool = False, wrong: float | None = -0.5,
        monitor: Literal["train", "eval"] = "train", window: int = 8, unit: Literal["tokens", "characters"] = "tokens",
    ) -> None:  # fmt: skip
        if not (1 <= lower <= upper and step >= 1 and n >= 3 and window >= 1):
            raise Refused(f"laser_d(lower={lower}, step={step}, upper={upper}, n={n}, window={window}): 1 <= lower <= upper, n >= 3.")
        self.lengths, self.n, self.bonus, self.explore, self.wrong = range(lower, upper + 1, step), n, bonus, explore, wrong
        self.form: Form = form
        self.unit: Unit = unit
        self.monitor, self.window = monitor, window
        self.targets: dict[str, float | None] = dict.fromkeys(BANDS, float(target))
        """Tokens, by band; None: no limit."""
        self.seen: list[dict[str, list[float]]] = []
        """The lengths of each observed batch, by band."""

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context) -> Rewards:
        limits = {name: np.inf if target is None else target for name, target in self.targets.items()}

        def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
            target = np.full(len(old), np.inf)
            for rows in group_rows(samples):
                target[rows] = limits[band(int(right[rows].sum()), int(known[rows].sum()))]
            out = step_reward(old, right, length, target, self.bonus, self.form, self.wrong)
            if self.explore:
                for i in np.flatnonzero(known & ~right & (length > target)).tolist():
                    out[i] += self.bonus * (not repeats(_written(samples[i], self.unit)))
            return out

        return reshaped(rewards, samples, self.unit, value)

    def observe(self, samples: Sequence[Sample], rewards: Rewards, context: Context, on: str = "train") -> None:
        g, length = rewards.outcome, sizes(samples, self.unit)
        if on != self.monitor or g is None:
            return
        found: dict[str, list[float]] = {name: [] for name in BANDS}
        for rows in group_rows(samples):
            known = rows[g.scored[rows] & ~np.isnan(length[rows])]
            found[band(int((g.value[known] > 0.5).sum()), len(known))] += length[known].tolist()
        self.seen = [*self.seen, found][-self.window :]
        self.targets = {name: self._target(name) for name in BANDS}

    def _target(self, name: str) -> float | None:
        sorted_lengths = np.sort([length for batch in self.seen for length in batch[name]])
        expected = {"low": 1, "medium": self.n // 3, "high": 2 * self.n // 3}[name]
        for limit in self.lengths:
            within = int(np.searchsorted(sorted_lengths, limit, "right"))
            if within and within * expected >= len(sorted_lengths):
                return float(limit)
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"targets": self.targets, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.targets, self.seen = state["targets"], state["seen"]


def _written(sample: Sample, unit: str) -> Sequence[Any]:
    """What the policy wrote: its tokens, or the characters of the text."""
    if unit == "characters" or sample.ids is None:
        return sample.text
    return (sample.ids if sample.written is None else sample.ids[np.asarray(sample.written, dtype=bool)]).tolist()


def repeats(items: Sequence[Any], n: int = 4, times: int = 3) -> bool:
    """Does some run of n tokens (or characters) begin `times` times or more within a third of the answer? Linear in its length.

    The LASER release asks that two of the three stand so close, of answers under 200 tokens less, and lets runs of a single token pass.
    """
    last: dict[Any, list[int]] = {}
    for i in range(len(items) - n + 1):
        at = last.setdefault(tuple(items[i : i + n]), [])
        at.append(i)
        if len(at) >= times and 3 * (i - at[-times]) <= len(items):
            return True
    return False


# --- relative to the group -------------------------------------------------------------------------------------------------------


@shape(grains=("outcome",), changes_state=True)
def top_lambda(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    share: float = 0.2,
    alpha: float = 0.6,
    unit: Literal["tokens", "characters"] = "tokens",
) -> Rewards:
    """A length penalty in the groups that are right most often, the plain 0 or 1 in the others.

    Of the groups scored together, the ceil(share * groups) with the highest share of right answers, one at least: a right answer gets
    1 - alpha sigmoid((L - mean) / std), mean and std of the lengths of the group's right answers; a wrong one 0. One right answer alone
    gets 1 - alpha / 2. Ties are broken by a hash of step and task, the same in whatever order groups come. share 1 punishes length always.
    Raises Refused for a share outside (0, 1] and an alpha outside [0, 1). Source: arXiv:2505.18086 (called GRPO-lambda there).
    """
    if not 0 < share <= 1 or not 0 <= alpha < 1:
        raise Refused(f"top_lambda(share={share}, alpha={alpha}): share is above 0 and at most 1, alpha at least 0 and below 1.")

    def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
        out = right.astype(float)
        groups = [rows for rows in group_rows(samples) if known[rows].any()]

        def order(rows: np.ndarray) -> tuple[float, bytes, int]:
            first = samples[int(rows[0])]
            tie = hashlib.blake2b(f"{context.progress.step}/{first.task.id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
            return -right[rows].sum() / known[rows].sum(), tie, first.group

        top = max(1, int(np.ceil(share * len(groups) - 1e-9)))
        for rows in sorted(groups, key=order)[:top]:
            mine = rows[right[rows]]
            if len(mine):
                out[mine] = 1 - alpha * sigmoid(z_score(length[mine]))
        return out

    return reshaped(rewards, samples, unit, value)


@shape(scope="group", grains=("outcome",), changes_state=True)
def z_length(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    weight: float = 0.4,
    unit: Literal["tokens", "characters"] = "tokens",
) -> Rewards:
    """r (1 - weight sigmoid(z)) of right answers, z = (L - mean) / (std + 1e-6) over the right answers of the group; wrong ones keep r.

    One right answer alone has z = 0 (in the LASER release its z is its length). Source: arXiv:2502.04463, as ported by arXiv:2505.15612.
    """

    def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
        out = old.copy()
        for rows in group_rows(samples):
            mine = rows[right[rows]]
            if len(mine):
                out[mine] = old[mine] * (1 - weight * sigmoid(z_score(length[mine])))
        return out

    return reshaped(rewards, samples, unit, value)


@shape(scope="group", grains=("outcome",), changes_state=True)
def kimi_length(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    weight: float = 0.4,
    begin: float = 0.0,
    unit: Literal["tokens", "characters"] = "tokens",
) -> Rewards:
    """r + weight * lam for a right answer, r + weight * min(0, lam) for a wrong one, lam = 0.5 - (L - min) / (max - min).

    min and max are over all answers of the group; equal lengths give lam 0. begin: share of the run, or optimiser step where above 1, until
    which the weight is 0 (lengths punished from the start slow learning); outside a run it is on.
    Source: arXiv:2501.12599, section 2.3.3; weight 0.4 from the port in the LASER release (arXiv:2505.15612).
    """
    on = weight * schedule(context.progress, 0.0, 1.0, 0.0, begin, "step") if begin else weight

    def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
        out = old.copy()
        for rows in group_rows(samples):
            mine = rows[known[rows]]
            spread = np.ptp(length[mine]) if len(mine) else 0.0
            if spread:
                lam = 0.5 - (length[mine] - length[mine].min()) / spread
                out[mine] += on * np.where(right[mine], lam, np.minimum(0.0, lam))
        return out

    return reshaped(rewards, samples, unit, value)


# --- by length alone -------------------------------------------------------------------------------------------------------------


@shape(scope="sample", grains=("outcome",), changes_state=True)
def cosine_length(
    rewards: Rewards,
    samples: Sequence[Sample],
    context: Context,
    limit: int = 4096,
    right_short: float = 2.0,
    right_long: float = 1.0,
    wrong_short: float = -10.0,
    wrong_long: float = 0.0,
    exceeded: float = -10.0,
    unit: Literal["tokens", "characters"] = "tokens",
) -> Rewards:
    """long + (short - long) (1 + cos(pi L / limit)) / 2: from `*_short` at nothing to `*_long` at the limit; `exceeded` from the limit on.

    Right answers are paid for being short, wrong ones for going on thinking. The released code calls a length exceeded 16 tokens before the
    limit, and adds a penalty of repetition to wrong answers, which is a reward of its own here. Source: arXiv:2502.03373.
    """
    if limit < 1:
        raise Refused(f"cosine_length(limit={limit}): the limit is a number of {unit}, 1 or more.")

    def value(old: np.ndarray, right: np.ndarray, length: np.ndarray, known: np.ndarray) -> np.ndarray:
        short, long = np.where(right, right_short, wrong_short), np.where(right, right_long, wrong_long)
        cosine = long + (short - long) * 0.5 * (1 + np.cos(np.pi * length / limit))
        return np.where(length >= limit, exceeded, cosine)

    return reshaped(rewards, samples, unit, value)
