"""TRL: our rewards as `reward_funcs`, and a GRPOTrainer whose loss gets our advantages, one a token.

TRL spreads the completions of one prompt over its processes. A reward or a credit that compares a group is therefore computed once over the
completions of all processes, and every process takes its own rows; nothing is ever computed over part of a group.
Written against trl 1.16.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from trl import GRPOTrainer  # pyright: ignore[reportMissingImports]

from guerdon.backends.tokens import Tokens
from guerdon.integrations.common import Credit, Scorer, join, part_means, sample_of, spoken, wants
from guerdon.registry import Refused
from guerdon.rewards.expr import Expr
from guerdon.samples import Context, Progress, Rewards, Sample, Task, collate

if TYPE_CHECKING:
    from guerdon.samples import Batch

T = TypeVar("T")
NOT_COLUMNS = ("trainer_state", "log_extra", "log_metric", "environments", "prompt", "completion", "completion_ids")
TRAINER = "use GuerdonGRPOTrainer(reward=..., credit=...)."


def gather(rows: list[T]) -> tuple[list[T], slice]:
    """The rows of all processes in TRL's order, and where those of this process stand among them."""
    state = PartialState()
    if state.num_processes == 1:
        return rows, slice(0, len(rows))
    start = sum(gather_object([len(rows)])[: state.process_index])
    return gather_object(rows), slice(start, start + len(rows))


def on_main(compute: Callable[[], T]) -> T:
    """What the main process computes, in all processes; what it raises is raised in all of them, so that none waits for ever."""
    state = PartialState()
    if state.num_processes == 1:
        return compute()
    box: list[Any] = [None, None]
    if state.is_main_process:
        try:
            box[0] = compute()
        except Exception as error:
            box[1] = error
    broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    return box[0]


def progress_of(state: Any) -> Progress:
    """TRL's `trainer_state` in optimiser steps."""
    return Progress(int(state.global_step), max(int(state.max_steps), 0)) if state is not None else Progress(0, 0)


class RewardFunc:
    """A reward expression as one of TRL's `reward_funcs`, see `reward_funcs`."""

    def __init__(
        self,
        expression: Expr | str,
        context: Context | None,
        *,
        reference: str,
        split: str,
        tokenizer: Any,
        generations: int | None,
        **engine: Any,
    ) -> None:
        self.scorer = Scorer(expression, context, **engine)
        self.reference, self.split, self.generations = reference, split, generations
        self.tokens = None if tokenizer is None else Tokens(tokenizer, [i for i in (tokenizer.eos_token_id,) if i is not None])
        self.__name__ = str(self.scorer.expression)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any],
        trainer_state: Any = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence[Any],
    ) -> list[float | None]:
        """One number a completion; None, which TRL leaves out of the group's mean, where the reward abstained or failed."""
        columns = {name: values for name, values in columns.items() if name not in NOT_COLUMNS}
        tasks = self.tasks(prompts, columns)
        own = [
            sample_of(task, spoken(c), self.split, ids=row, tokens=self.tokens, messages=conversation(task, c))
            for task, c, row in zip(tasks, completions, completion_ids, strict=True)
        ]
        if self.scorer.whole:
            samples, mine = gather(own)
            set_groups(samples, self.generations)
            index = np.arange(len(samples))[mine]
            rewards = on_main(lambda: self.scorer.score(samples, progress_of(trainer_state))).rows(index)
        else:
            rewards = self.scorer.score(own, progress_of(trainer_state))
        self.log(rewards, log_extra, log_metric)
        assert rewards.outcome is not None
        return [float(x) if ok else None for x, ok in zip(rewards.outcome.value, rewards.alive, strict=True)]

    def tasks(self, prompts: Sequence[Any], columns: Mapping[str, Sequence[Any]]) -> list[Task]:
        """A task a row: the dataset's column `reference` is its reference, `id` its id, the others are its meta."""
        if self.reference not in columns and wants(self.scorer.expression, "reference"):
            there = ", ".join(sorted(columns)) or "none"
            raise Refused(
                f"`{self.scorer.expression}` compares with a reference, but the dataset has no column {self.reference!r}; its columns "
                f"beside the prompt: {there}. Name the right one by reference=COLUMN."
            )
        rest = [name for name in columns if name not in (self.reference, "id")]
        return [
            Task(
                str(columns["id"][i]) if "id" in columns else "",
                prompt,
                columns[self.reference][i] if self.reference in columns else None,
                {name: columns[name][i] for name in rest},
            )
            for i, prompt in enumerate(prompts)
        ]

    def log(self, rewards: Rewards, log_extra: Any, log_metric: Any) -> None:
        if log_metric is not None:
            for name, mean in part_means(rewards).items():
                log_metric(f"guerdon/{name}", mean)
        if log_extra is not None:
            log_extra("guerdon", [rewards.why(i) for i in range(len(rewards))])


def reward_funcs(
    expression: Expr | str,
    *,
    context: Context | None = None,
    reference: str = "reference",
    split: str = "lines",
    tokenizer: Any = None,
    generations: int | None = None,
    **engine: Any,
) -> list[Callable[..., list[float | None]]]:
    """`GRPOTrainer(reward_funcs=reward_funcs("gate(format, math)"), ...)`: an expression as TRL reward functions.

    reference: the dataset's column with the references; the other columns are the tasks' meta. context: services and models that the
    rewards ask for. split: how steps are cut. tokenizer: needed by rewards that read `ids`. generations: TRL's num_generations, where a
    dataset repeats a prompt; else rows of equal prompt and columns that stand together are a group. engine: options of `scoring.Engine`.

    Failed and abstained are None, with the reason in the column `guerdon` of TRL's table of completions; every part is a metric
    `guerdon/PART`. Raises Refused for step and token rewards and for shapes that learn, which need the trainer's help.
    """
    func = RewardFunc(expression, context, reference=reference, split=split, tokenizer=tokenizer, generations=generations, **engine)
    func.scorer.refuse_fine("A TRL reward function", TRAINER)
    for name in func.scorer.hooked():
        raise Refused(f"The shape {name!r} learns from training batches, and a TRL reward function is not told which ones are; {TRAINER}")
    if func.tokens is None and (wants(func.scorer.expression, "ids") or wants(func.scorer.expression, "logprobs")):
        raise Refused(f"`{func.scorer.expression}` reads token ids; pass tokenizer=... to reward_funcs.")
    return [func]


def conversation(task: Task, completion: Any) -> list[dict[str, Any]] | None:
    return None if isinstance(task.prompt, str) or isinstance(completion, str) else [*task.prompt, *completion]


def set_groups(samples: Sequence[Sample], generations: int | None) -> None:
    """Numbers the groups of all processes' samples: runs of `generations` rows, else neighbours of one task."""
    if generations is not None and len(samples) % generations:
        raise Refused(f"{len(samples)} completions are no whole groups of {generations}; generations= is TRL's num_generations.")
    group = 0
    for i, sample in enumerate(samples):
        if generations is not None:
            group = i // generations
        elif i and _same(sample.task) != _same(samples[i - 1].task):
            group += 1
        sample.group = group


def _same(task: Task) -> tuple[Any, ...]:
    return task.id, task.prompt, task.reference


class GuerdonGRPOTrainer(GRPOTrainer):
    """GRPOTrainer with rewards by our engine and advantages (B, T) by any registered credit; everything else is TRL's.

    reward: an expression. credit: its spelling in a recipe, `"min_form"` or `{"use": "min_form", "temperature": 0.05}`. split, reference,
    context: as in `reward_funcs`. Rows without a verdict get no gradient and count in no token mean. What shapes have learnt is kept in
    TRL's checkpoints. Raises Refused, before anything is loaded, for what TRL cannot fill or would use otherwise than it is meant.
    """

    def __init__(
        self,
        model: Any,
        reward: Expr | str,
        credit: str | Mapping[str, Any] = "grpo",
        *,
        split: str = "lines",
        reference: str = "reference",
        context: Context | None = None,
        engine: Mapping[str, Any] | None = None,
        args: Any = None,
        **kwargs: Any,
    ) -> None:
        beta = 0.0 if args is None else args.beta
        columns = getattr(kwargs.get("train_dataset"), "column_names", None) or []  # numeric ones are fields, as everywhere
        self.credit = Credit(credit, "TRL", ("logprobs", "entropy", *(["ref_logprobs"] if beta else []), *columns))
        refuse_settings(args, kwargs)
        self.reward = RewardFunc(reward, context, reference=reference, split=split, tokenizer=None, generations=None, **(engine or {}))
        self.scored: tuple[list[Sample], Rewards, slice] | None = None
        self.batch: Batch | None = None
        super().__init__(model=model, reward_funcs=[self.reward], args=args, **kwargs)
        self.tokens = Tokens(self._tokenizer, self.eos_token_ids)

    def _generate(self, prompts: list[Any]) -> Any:
        out = super()._generate(prompts)
        self.generated = {"prompt_ids": out[0], "tool_mask": out[2], "logprobs": out[4]}
        return out

    def _calculate_rewards(self, inputs: list[Any], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]) -> Any:
        """(completions of all processes, 1) rewards, NaN without a verdict; the samples are kept for the credit."""
        columns = {name: [row[name] for row in inputs] for name in inputs[0] if name not in NOT_COLUMNS}
        own = self.samples(self.reward.tasks(prompts, columns), completions, completion_ids_list)
        samples, mine = gather(own)
        set_groups(samples, self.num_generations if self.model.training else self.num_generations_eval)
        progress, on = progress_of(self.state), "train" if self.model.training else "eval"
        if self.reward.scorer.whole:
            rewards = on_main(lambda: self.reward.scorer.train(samples, progress, on))
        else:
            rewards = join(gather([self.reward.scorer.score(own, progress)])[0])
        self.credit.check_grains(rewards)
        self.scored = samples, rewards, mine
        self.reward.log(rewards.rows(np.arange(len(samples))[mine]), self._log_completion_extra, self._log_metric)
        values = np.where(rewards.alive, rewards.total(), np.nan)
        return torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)[:, None]

    def samples(self, tasks: Sequence[Task], completions: Sequence[Any], ids: Sequence[Any]) -> list[Sample]:
        """This process's completions, with the ids that TRL trains on; what a tool wrote is marked as not written."""
        made, ends = [], {*self.eos_token_ids, self._tokenizer.pad_token_id}
        for i, (task, completion, row) in enumerate(zip(tasks, completions, ids, strict=True)):
            mask, logprobs = self.generated["tool_mask"], self.generated["logprobs"]
            made.append(
                sample_of(
                    task,
                    "",
                    self.reward.split,
                    prompt_ids=self.generated["prompt_ids"][i],
                    ids=row,
                    tokens=self.tokens,
                    written=np.ones(len(row), dtype=bool) if mask is None else np.asarray(mask[i], dtype=bool),
                    logprobs=None if logprobs is None else np.array([np.nan if x is None else x for x in logprobs[i]], dtype=np.float64),
                    stop="end" if len(row) and row[-1] in ends else "length",
                    messages=conversation(task, completion),
                    meta=dict(task.meta),
                )
            )
        return made

    def _generate_and_score_completions(self, inputs: list[Any]) -> dict[str, Any]:
        """TRL's batch with our advantages (B, T) in it."""
        output = super()._generate_and_score_completions(inputs)
        assert self.scored is not None
        samples, rewards, mine = self.scored
        batch = collate(samples, rewards)
        for name, rows in self.fields(output).items():
            whole = gather(rows)[0]
            batch.fields[name] = torch.zeros_like(batch.weights)
            for i, row in enumerate(whole):
                batch.fields[name][i, : len(row)] = row
        batch.advantages = self.credit(batch)
        self.batch = batch
        self.learn(batch)
        device, width = output["completion_ids"].device, output["completion_ids"].shape[1]
        own = batch.advantages[mine, :width].to(device)
        output["advantages"] = torch.nn.functional.pad(own, (0, width - own.shape[1]))
        self.leave_out(output, batch.alive[mine].to(device))
        per_sample = batch.advantages.sum(1) / batch.mask.sum(1).clamp(min=1)
        logged = self._logs["advantages"]  # TRL has put its own there
        for _ in range(min(len(logged), len(per_sample))):
            logged.pop()
        logged.extend(per_sample.tolist())
        return output

    def fields(self, output: Mapping[str, Any]) -> dict[str, list[torch.Tensor]]:
        """What the credit needs, a row a completion of this process."""
        needs, found = set(self.credit.piece.needs), {}
        lengths = [len(s.ids) for s in self.scored[0][self.scored[2]]]  # type: ignore[index, arg-type]
        if needs & {"logprobs", "entropy"}:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
            with torch.no_grad():
                logps, entropies, _ = self._get_per_token_logps_and_entropies(
                    self.model,
                    ids,
                    mask,
                    output["completion_ids"].shape[1],
                    batch_size=self.args.per_device_train_batch_size,
                    compute_entropy=True,
                )
            found = {"logprobs": logps, "entropy": entropies}
        if "ref_logprobs" in needs:
            found["ref_logprobs"] = output["ref_per_token_logps"]
        return {name: [row[:n].cpu() for row, n in zip(found[name], lengths, strict=True)] for name in sorted(needs & set(found))}

    def learn(self, batch: Batch) -> None:
        """The hook `update` of shapes that learn from the batch."""
        scorer = self.reward.scorer
        pieces = [pipe.shape for pipe in scorer.shapes() if hasattr(pipe.shape.fn, "update")] if self.model.training else []
        for piece in pieces:
            learned = on_main(lambda piece=piece: piece.fn.update(batch, scorer.engine.context))
            for name, value in learned.items():
                self._metrics["train"][f"guerdon/{name}"].append(float(value))

    def leave_out(self, output: dict[str, Any], alive: torch.Tensor) -> None:
        """Takes rows without a verdict out of TRL's loss mask and token count, as what a tool wrote is."""
        everywhere = self.accelerator.gather(alive)
        if bool(everywhere.all()):
            return
        before = output.get("tool_mask", torch.ones_like(output["completion_mask"]))
        output["tool_mask"] = before * alive[:, None].to(before.dtype)
        output["num_items_in_batch"] = self.accelerator.gather((output["completion_mask"] * output["tool_mask"]).sum()).sum()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        state = self.reward.scorer.state_dict()
        if state["shapes"] and self.accelerator.is_main_process:
            path = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}" / "guerdon.json"
            path.write_text(json.dumps(state))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        path = None if checkpoint is None else Path(checkpoint) / "guerdon.json"
        if path is not None and path.is_file():
            self.reward.scorer.load_state_dict(json.loads(path.read_text()))


def refuse_settings(args: Any, kwargs: Mapping[str, Any]) -> None:
    """Raises Refused for settings of TRL that would be ignored, or that read one advantage a sequence."""
    if kwargs.get("reward_funcs"):
        raise Refused("GuerdonGRPOTrainer takes its rewards from reward=...; lift a function with @guerdon.reward and put it there.")
    if args is None:
        return
    if args.reward_weights is not None:
        raise Refused("reward_weights would weigh one expression; write the factors into it: `math + 0.2 * format`.")
    if args.loss_type == "vespo" or args.off_policy_mask_threshold is not None:
        setting = "loss_type='vespo'" if args.loss_type == "vespo" else "off_policy_mask_threshold"
        raise Refused(f"{setting} reads the sign of one advantage a sequence, and here every token has its own; leave it out.")
