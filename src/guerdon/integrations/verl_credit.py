"""Step and tree credit for verl, as finished data: whole groups are scored and their advantages worked out before verl's loss.

verl shows an estimator neither ids nor steps nor a tree. So either a trainer of ours, `trainer.v1.trainer_mode=guerdon_sync`, puts the
finished advantages in place of those that verl computed; or whoever holds a DataProto passes it through `Finished`, which makes its token
rewards the finished advantages, and sets `algorithm.adv_estimator=guerdon_given`, which hands them on unchanged. (gamma = lambda = 1 with
one of verl's own estimators would not: those sum the token rewards or whiten them.)

Loaded by VERL_USE_EXTERNAL_MODULES=guerdon.integrations.verl,guerdon.integrations.verl_credit. Written against verl 0.9.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transfer_queue as tq  # pyright: ignore[reportMissingImports]
from tensordict import TensorDict  # pyright: ignore[reportMissingImports]
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, register_trainer  # pyright: ignore[reportMissingImports]

from guerdon.backends.tokens import Tokens
from guerdon.integrations.common import Credit, Scorer, part_means, sample_of
from guerdon.integrations.verl import scorer_of, settings_of, task_of
from guerdon.registry import Refused
from guerdon.rewards.expr import Expr
from guerdon.samples import Context, Progress, Sample, collate

FILLS = {"logprobs": "old_log_probs", "ref_logprobs": "ref_log_prob", "values": "values"}
"""The batch fields that verl can fill, and what it calls them."""


@dataclass
class Row:
    """An answer of verl: its tokens without padding, the columns of its prompt, and numbers a token under our names."""

    uid: str
    prompt_ids: np.ndarray
    ids: np.ndarray
    written: np.ndarray
    columns: Mapping[str, Any]
    fields: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Finished:
    """Rewards and credit over whole groups: rows in, advantages out. `metrics` are those of the last call.

    samples: answers a group has (`actor_rollout_ref.rollout.n`); a group with fewer or more is refused, since a rank that holds a part of
    one would compare it with itself. Raises Refused for a credit that needs what verl cannot fill.
    """

    def __init__(
        self, reward: Expr | str | Scorer, credit: str | Mapping[str, Any], tokenizer: Any, samples: int, *, split: str = "lines",
        context: Context | None = None,
    ) -> None:  # fmt: skip
        self.scorer = reward if isinstance(reward, Scorer) else Scorer(reward, context)
        self.credit = Credit(credit, "verl", tuple(FILLS))
        self.tokens = Tokens(tokenizer, [i for i in (tokenizer.eos_token_id,) if i is not None])
        self.samples, self.split = samples, split
        self.metrics: dict[str, float] = {}

    def advantages(self, rows: Sequence[Row], progress: Progress = Progress(0, 0)) -> list[torch.Tensor]:  # noqa: B008  a tuple
        """(t,) finished advantages of each row, 0 where it has no verdict and on tokens that it did not write."""
        for uid, count in Counter(row.uid for row in rows).items():
            if count != self.samples:
                raise Refused(
                    f"Group {uid!r} has {count} of {self.samples} answers here; credit needs whole groups, so hand over the whole batch."
                )
        number = {uid: i for i, uid in enumerate(dict.fromkeys(row.uid for row in rows))}
        made = [self.sample(row, number[row.uid]) for row in rows]
        rewards = self.scorer.train(made, progress)
        self.metrics = {f"guerdon/{name}": mean for name, mean in part_means(rewards).items()}
        batch = collate(made, rewards)
        for name in self.credit.piece.needs:
            if any(name not in row.fields for row in rows):
                raise Refused(f"The credit {self.credit.piece.name!r} needs {name!r}, and this batch of verl has no {FILLS[name]!r}.")
            batch.fields[name] = torch.zeros_like(batch.weights)
            for i, row in enumerate(rows):
                batch.fields[name][i, : len(row.ids)] = row.fields[name].to(batch.weights)
        return [a[: len(row.ids)] for a, row in zip(self.credit(batch), rows, strict=True)]

    def sample(self, row: Row, group: int) -> Sample:
        task, own = task_of({**row.columns, "uid": row.uid}), {"written": row.written, "group": group}
        return sample_of(task, "", self.split, prompt_ids=row.prompt_ids, ids=row.ids, tokens=self.tokens, **own)

    def __call__(self, data: Any, progress: Progress = Progress(0, 0)) -> Any:  # noqa: B008  a tuple
        """The DataProto with `token_level_rewards`, `advantages` and `returns` (B, T) set to the finished advantages."""
        found = self.advantages(rows_of(data), progress)
        out = torch.zeros(data.batch["responses"].shape, dtype=torch.float32)
        for i, row in enumerate(found):
            out[i, : len(row)] = row
        for name in ("token_level_rewards", "advantages", "returns"):
            data.batch[name] = out.clone()
        return data


def rows_of(data: Any) -> list[Row]:
    """The rows of a padded DataProto: `prompts` padded on the left, `responses` on the right, `uid` and the dataset's columns beside."""
    if "uid" not in data.non_tensor_batch:
        raise Refused("The batch has no `uid`, so nobody knows which answers are one group.")
    prompts, responses, attention = (data.batch[name] for name in ("prompts", "responses", "attention_mask"))
    p, rows = prompts.shape[1], []
    for i in range(len(responses)):
        n = int(attention[i, p:].sum())
        mask = data.batch["response_mask"][i, :n].bool() if "response_mask" in data.batch else torch.ones(n, dtype=torch.bool)
        rows.append(
            Row(
                str(data.non_tensor_batch["uid"][i]),
                prompts[i][attention[i, :p].bool()].numpy(),
                responses[i, :n].numpy(),
                mask.numpy(),
                {name: column[i] for name, column in data.non_tensor_batch.items()},
                {ours: data.batch[theirs][i, :n] for ours, theirs in FILLS.items() if theirs in data.batch},
            )
        )
    return rows


class FinishedCredit:
    """In front of a trainer of verl: its advantages, finished, in place of those that verl's estimator computed.

    `+reward.reward_kwargs.guerdon.reward="gate(format, math) + judge_steps" +reward.reward_kwargs.guerdon.credit=min_form`. Rewards of
    groups and of steps are welcome here: this runs in the driver, over whole groups. Where the reward manager is `guerdon` too, give both
    a `cache`, and nothing is judged twice.
    """

    config: Any
    tokenizer: Any
    global_steps: int

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.check(batch)
        batch = super()._compute_advantage(batch, metrics)  # type: ignore[misc]  KL, rollout correction: what else verl does here
        real = [i for i, tag in enumerate(batch.tags) if not tag.get("is_padding")]  # verl fills a batch up with empty rows
        columns = ["uid", "prompts", "responses", "response_mask", "raw_prompt", "reward_model", "data_source", "extra_info"]
        fields = [*columns, *(FILLS[name] for name in self.finished.credit.piece.needs)]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rows = nested_rows(data, len(batch.keys))
        progress = Progress(self.global_steps, getattr(self, "total_training_steps", 0) or 0)
        found = [torch.zeros(len(row.ids)) for row in rows]
        for i, advantages in zip(real, self.finished.advantages([rows[i] for i in real], progress), strict=True):
            found[i] = advantages
        metrics.update(self.finished.metrics)
        nested = torch.nested.as_nested_tensor(found, layout=torch.jagged)
        out = TensorDict({"advantages": nested, "returns": nested.clone()}, batch_size=len(batch.keys))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=out)

    def check(self, batch: Any) -> None:
        if self.config.algorithm.use_kl_in_reward:
            raise Refused("Finished advantages have no place for algorithm.use_kl_in_reward; use actor_rollout_ref.actor.use_kl_loss.")
        sessions = Counter(key.rsplit("_", 1)[0] for key in batch.keys)
        if several := [key for key, count in sessions.items() if count > 1]:
            raise Refused(f"Session {several[0]!r} has several outputs, and finished credit is worked out for one answer a session.")

    @property
    def finished(self) -> Finished:
        if "_finished" not in vars(self):
            settings = settings_of(self.config)
            if not settings["credit"]:
                raise Refused("No credit: add `+reward.reward_kwargs.guerdon.credit=min_form` to the command line of verl.")
            n = int(self.config.actor_rollout_ref.rollout.n)
            credit = settings["credit"] if isinstance(settings["credit"], str) else dict(settings["credit"])
            self._finished = Finished(scorer_of(settings), credit, self.tokenizer, n, split=settings["split"])
        return self._finished


def nested_rows(data: Any, n: int) -> list[Row]:
    """The rows of what verl keeps in TransferQueue: nested tensors, and columns one entry a row."""
    columns = {name: _listed(data[name]) for name in ("raw_prompt", "reward_model", "data_source", "extra_info") if name in data}
    uid = _listed(data["uid"])
    tensors = {name: data[name].unbind() for name in ("prompts", "responses", "response_mask", *FILLS.values()) if name in data}
    return [
        Row(
            str(uid[i]),
            tensors["prompts"][i].numpy(),
            tensors["responses"][i].numpy(),
            tensors["response_mask"][i].bool().numpy(),
            {name: column[i] for name, column in columns.items()},
            {ours: tensors[theirs][i] for ours, theirs in FILLS.items() if theirs in tensors},
        )
        for i in range(n)
    ]


def _listed(column: Any) -> list[Any]:
    return column.tolist() if hasattr(column, "tolist") else list(column)


for _name, _trainer in list(TRAINER_REGISTRY.items()):
    if not issubclass(_trainer, FinishedCredit):
        register_trainer(f"guerdon_{_name}")(type(f"Finished{_trainer.__name__}", (FinishedCredit, _trainer), {}))
