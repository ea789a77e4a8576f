"""verl: a reward manager, the outcome credits and the token losses under verl's own registries.

Importing this registers all of it. verl does so by itself, in every process: through the entry point group `verl.plugins`, or through
VERL_USE_EXTERNAL_MODULES=guerdon.integrations.verl, which unlike the entry point says why where it fails.

An estimator of verl sees token rewards, a mask and the index of the group, nothing else, so only outcome credit is registered as one;
step and tree credit travels as finished data, see `verl_credit`. Written against verl 0.9.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from verl.experimental.reward_loop.reward_manager import register  # pyright: ignore[reportMissingImports]
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase  # pyright: ignore[reportMissingImports]
from verl.trainer.ppo.core_algos import agg_loss, register_adv_est, register_policy_loss  # pyright: ignore[reportMissingImports]

from guerdon.backends.tokens import Tokens
from guerdon.integrations.common import Credit, Scorer, Together, sample_of, unscored
from guerdon.recipe import Use, check_params
from guerdon.registry import Broke, Refused, find, nearest, pieces
from guerdon.samples import Batch, Grain, Rewards, Sample, State, Task
from guerdon.scoring.cache import Cache
from guerdon.tree import Tree

OUTCOME = ("grpo", "dr_grpo", "rloo", "gpg", "reinforce_pp", "three_sigma")
"""Credits that read nothing but rewards, mask and group."""

TRAINER = "use a trainer `guerdon_sync`, `guerdon_colocate_async` or `guerdon_separate_async`, which sees whole groups."


# --- rewards ---------------------------------------------------------------------------------------------------------------------

SETTINGS = {"reward": None, "credit": None, "split": "lines", "unscored": "drop", "workers": 1, "cache": None}
"""`+reward.reward_kwargs.guerdon.NAME=...`. reward: the expression. credit: see `verl_credit`. unscored: `drop` or `mark`, see
GuerdonRewardManager. workers: processes a reward worker of verl may start. cache: a file that remembers verdicts between processes."""


def settings_of(config: Any) -> dict[str, Any]:
    """Our settings in a configuration of verl. Raises Refused for an unknown one and where there is no reward."""
    given = config.reward.get("reward_kwargs") or {}
    given = given.get("guerdon") or {}
    for name in given:
        if name not in SETTINGS:
            raise Refused(f"reward.reward_kwargs.guerdon has no setting {name!r}{nearest(name, SETTINGS)}")
    found = {**SETTINGS, **given}
    if not found["reward"]:
        raise Refused('No reward: add `+reward.reward_kwargs.guerdon.reward="gate(format, math)"` to the command line of verl.')
    if found["unscored"] not in ("drop", "mark"):
        raise Refused(f"reward.reward_kwargs.guerdon.unscored is drop or mark, not {found['unscored']!r}.")
    return found


def scorer_of(settings: Mapping[str, Any]) -> Scorer:
    cache = Cache(settings["cache"]) if settings["cache"] else None
    return Scorer(settings["reward"], workers=int(settings["workers"]), cache=cache)


def task_of(fields: Mapping[str, Any]) -> Task:
    """verl's columns: `raw_prompt` is the prompt, `reward_model.ground_truth` the reference, `data_source` and `extra_info` are meta."""
    prompt = fields.get("raw_prompt")
    prompt = "" if prompt is None else prompt if isinstance(prompt, str) else list(prompt)
    reference = (fields.get("reward_model") or {}).get("ground_truth")
    meta = {"data_source": fields["data_source"]} if fields.get("data_source") is not None else {}
    return Task(str(fields.get("uid", "")), prompt, reference, {**meta, **(fields.get("extra_info") or {})})


@register("guerdon")
class GuerdonRewardManager(RewardManagerBase):
    """`reward.reward_manager.name=guerdon +reward.reward_kwargs.guerdon.reward="gate(format, math)"`.

    verl scores one answer a call and its reward is a float. unscored `drop`: an answer without a verdict raises, which makes verl discard
    its group. `mark`: its score is NaN, which our `guerdon_` estimators leave out; verl's own would turn the whole group into NaN. Either
    way it is never 0. `reward_extra_info` carries the state, the reason and every part. Raises Refused, by name, for rewards of groups
    and of steps.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **services: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        self.settings = settings_of(config)
        scorer = scorer_of(self.settings)
        scorer.refuse_groups("verl's reward manager", TRAINER)
        scorer.refuse_fine("verl's reward manager", TRAINER)
        self.together = Together(scorer)
        self.tokens = Tokens(tokenizer, [i for i in (tokenizer.eos_token_id,) if i is not None])

    async def run_single(self, data: Any) -> dict[str, Any]:
        """{reward_score, reward_extra_info} of the last row of `data`, as verl's own managers do."""
        row = data[-1]
        rewards = await asyncio.wrap_future(self.together.submit(self.sample(row)))
        assert rewards.outcome is not None
        why = unscored(rewards)
        if why is not None and self.settings["unscored"] == "drop":
            raise Broke(f"An answer to task {row.non_tensor_batch.get('uid', '')!r} has no reward, and verl drops its group: {why}")
        parts = {f"guerdon/{name}": _value(part.rewards) for name, part in rewards.parts.items()}
        info = {"guerdon_state": State(int(rewards.state[0])).name.lower(), "guerdon_reason": why or rewards.why(0), **parts}
        return {"reward_score": float(rewards.outcome.value[0]) if why is None else float("nan"), "reward_extra_info": info}

    def sample(self, row: Any) -> Sample:
        responses = row.batch["responses"]
        length = int(row.batch["attention_mask"][-responses.shape[-1] :].sum())
        ids = responses[:length].tolist()
        mask = row.batch["response_mask"][:length].bool().numpy() if "response_mask" in row.batch else np.ones(length, dtype=bool)
        return sample_of(task_of(row.non_tensor_batch), "", self.settings["split"], ids=ids, tokens=self.tokens, written=mask)


def _value(rewards: Rewards) -> float:
    return float(rewards.total()[0]) if rewards.alive[0] else float("nan")


# --- outcome credit --------------------------------------------------------------------------------------------------------------


def bare_batch(mask: torch.Tensor, rewards: Rewards, group: torch.Tensor, fields: dict[str, torch.Tensor] | None = None) -> Batch:
    """A Batch of what verl shows: no ids, steps or tree, and no prompts."""
    n, t = mask.shape
    columns = torch.arange(1, t + 1, device=mask.device)
    nowhere = torch.full((n, t), -1, dtype=torch.long, device=mask.device)
    none = np.zeros(0, dtype=np.int64)
    return Batch(
        prompts=[torch.zeros(0, dtype=torch.long)] * n,
        ids=torch.zeros((n, t), dtype=torch.long, device=mask.device),
        mask=mask,
        lengths=(columns * mask).amax(1) if t else torch.zeros(n, dtype=torch.long),
        step_of=nowhere,
        node_of=nowhere,
        group=group,
        rewards=rewards,
        tree=Tree(none, none, none, none),
        unit=torch.arange(n, device=mask.device),
        advantages=torch.zeros((n, t), device=mask.device),
        weights=mask.float(),
        pairs=torch.zeros((0, 2), dtype=torch.long, device=mask.device),
        fields=fields or {},
    )


def register_estimator(credit: str | Mapping[str, Any], name: str | None = None) -> Callable[..., Any]:
    """Enters one of `OUTCOME` as `algorithm.adv_estimator=guerdon_NAME`, or under `name` with parameters: `{"use": "grpo", "eps": 1e-4}`.

    A row whose token rewards hold NaN has no verdict: advantage 0, in no baseline. gamma is verl's where the credit has one and does not
    set it. Raises Refused for a credit that reads steps, ids or the tree, which verl does not show to an estimator.
    """
    spelling = {"use": credit} if isinstance(credit, str) else dict(credit)
    piece = find("credit", spelling["use"])
    if piece.name not in OUTCOME:
        raise Refused(f"An estimator of verl sees rewards, mask and group only, and the credit {piece.name!r} reads more; {TRAINER}")
    fine = "token" in piece.about.get("grains", ("outcome",))
    discounts = "gamma" in piece.fn.__code__.co_varnames[: piece.fn.__code__.co_argcount] and "gamma" not in spelling

    def estimate(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any = None, config: Any = None, **_: Any) -> Any:
        if index is None:
            raise Refused(f"The credit {piece.name!r} needs the group of each row, and this batch has no `uid`.")
        with torch.no_grad():
            x = token_level_rewards.detach().double().cpu().numpy()
            missing = np.isnan(x).any(1)
            state = np.where(missing, State.FAILED, State.SCORED)
            if fine:
                grain = Grain.of(np.nan_to_num(x), np.broadcast_to(state[:, None], x.shape))
                rewards = Rewards(token=grain)
            else:
                rewards = Rewards(outcome=Grain.of(np.nan_to_num(x).sum(1), state))
            group = torch.from_numpy(np.unique(np.asarray(index, dtype=object).astype(str), return_inverse=True)[1].reshape(-1))
            batch = bare_batch(response_mask.bool(), rewards, group.to(response_mask.device))
            gamma = {"gamma": float(config.gamma)} if discounts and config is not None else {}
            advantages = Credit({**spelling, **gamma}, "verl", ())(batch).to(token_level_rewards.dtype)
        return advantages, advantages

    estimate.__name__ = name or f"guerdon_{piece.name}"
    return register_adv_est(estimate.__name__)(estimate)


def given(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`algorithm.adv_estimator=guerdon_given`: the token rewards are finished advantages, and pass through unchanged."""
    advantages = token_level_rewards * response_mask
    if bool(torch.isnan(advantages).any()):
        raise Refused("guerdon_given was handed NaN for advantages; fill the token rewards with `verl_credit.Finished`.")
    return advantages, advantages


# --- losses ----------------------------------------------------------------------------------------------------------------------


def loss_of(name: str, params: Mapping[str, Any]) -> Callable[..., Any]:
    """A token loss of ours as one of verl's.

    Our losses are sums whose denominators are weights; the weights are the derivative of verl's `agg_loss` by each token's term, so every
    `loss_agg_mode`, and any split over micro-batches and ranks, comes out as verl means it. `clip` and `clip_high` are the actor's
    clip_ratio_low and clip_ratio_high, 0.2 each where nothing is said, unless set here. The metrics are means over the weights.
    """
    piece = find("loss", name)
    takes = piece.fn.__code__.co_varnames[: piece.fn.__code__.co_argcount]

    def loss(
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        mask = response_mask.bool()
        share = dict(config.global_batch_info) if config is not None else {}
        terms = torch.zeros_like(log_prob, requires_grad=True)
        with torch.enable_grad():
            [weights] = torch.autograd.grad(agg_loss(terms, mask, loss_agg_mode, **share), terms)
        if rollout_is_weights is not None:
            weights = weights * rollout_is_weights
        n = len(mask)
        batch = bare_batch(mask, Rewards(Grain.of(np.zeros(n))), torch.zeros(n, dtype=torch.long), {"logprobs": old_log_prob})
        batch = replace(batch, weights=weights, advantages=advantages)
        clips = {} if config is None else {"clip": config.clip_ratio_low, "clip_high": config.clip_ratio_high}
        own = {k: v for k, v in clips.items() if k in takes and v is not None}
        value, metrics = piece.fn({"logprobs": log_prob}, batch, **{**own, **params})
        total = float(weights.abs().sum().clamp(min=1e-12))
        return value, {f"actor/guerdon_{k}": float(v.detach()) / total for k, v in metrics.items()}

    return loss


def register_loss(loss: str | Mapping[str, Any], name: str | None = None) -> Callable[..., Any]:
    """Enters a token loss as `actor.policy_loss.loss_mode=guerdon_NAME`; `register_loss({"use": "ppo_clip", "clip_high": 0.28})`.

    Raises Refused for a loss that needs more than log-probabilities and advantages, or pairs.
    """
    use = Use(**{"use": loss} if isinstance(loss, str) else dict(loss))
    if problems := check_params("loss", use, "loss"):
        raise Refused(" ".join(problems))
    if not on_tokens(use.use):
        raise Refused(f"A loss of verl sees log-probabilities and advantages only, and the loss {use.use!r} needs more.")
    return register_policy_loss(name or f"guerdon_{use.use}")(loss_of(use.use, use.params))


def on_tokens(name: str) -> bool:
    """Whether a loss reads log-probabilities and advantages only: a policy gradient, whose terms vanish with the advantage."""
    piece = find("loss", name)
    plain = isinstance(piece.fn, type(on_tokens)) and not piece.needs and "unit" not in piece.about
    return bool(plain and piece.about.get("vanishes") and set(piece.about.get("fields", ())) <= {"logprobs"})


for _name in OUTCOME:
    register_estimator(_name)
register_adv_est("guerdon_given")(given)
for _piece in pieces("loss"):
    if on_tokens(_piece.name) and not check_params("loss", Use(use=_piece.name), "loss"):
        register_loss(_piece.name)
