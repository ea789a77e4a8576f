"""`guerdon fit`: transformers' Trainer drives the batches, losses and micro-batches that the training loop drives by the backend's verbs.

A fit is a folder: `fit.yaml` (the recipe as resolved), `metrics.jsonl`, `rejected.jsonl` (rows that were left out), `checkpoints/` while it
is under way, and at its end the model itself, `fitted.json` and a model card. Killed at any moment, it resumes to the same numbers.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import yaml
from rich.console import Console
from rich.progress import Progress
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from guerdon.backends import head as heads
from guerdon.backends.base import LossCall, loss_needs, total_loss
from guerdon.backends.local import local
from guerdon.backends.resolve import load_pretrained, locate, quiet
from guerdon.recipe import differing
from guerdon.registry import Broke, Interrupted, Refused, find
from guerdon.reward_models import data as files
from guerdon.reward_models import fit as rows
from guerdon.reward_models import folder as folders
from guerdon.reward_models.fit import Unit
from guerdon.reward_models.online import ready
from guerdon.scoring.show import meter
from guerdon.training.fit_card import evaluated, lines
from guerdon.training.fit_recipe import FitData, FitRecipe, plain, read
from guerdon.training.folder import replace_file
from guerdon.training.prepare import new_folder
from guerdon.training.record import read_jsonl


class Module(nn.Module):
    """What Trainer sees: everything that learns, and one micro-batch's outputs of the backend's model."""

    def __init__(self, handle: Any, calls: Sequence[LossCall]) -> None:
        super().__init__()
        self.causal, self.head = handle.causal, handle.head
        self.own = nn.ParameterList([p for call in calls for p in getattr(handle._own(call.name), "parameters", list)()])
        self._handle = [handle]  # in a list: no part of this module

    def forward(self, batch: Any, needs: Sequence[str], shared: bool) -> dict[str, torch.Tensor]:
        return self._handle[0]._outputs(batch, needs, 1.0, shared)


class Fitter(Trainer):
    """Trainer with our batches: `inputs` holds units; their batch is split, and its parts add up, as `TorchModel.forward_backward` does.

    The model stays in eval mode (no dropout), as in the training loop. Checkpoints hold what learns.
    """

    def __init__(self, handle: Any, recipe: FitRecipe, seen: Callable[[int, dict[str, float]], None], **more: Any) -> None:
        self.handle, self.recipe, self.seen = handle, recipe, seen
        self.calls = [recipe.call]
        super().__init__(model=Module(handle, self.calls), data_collator=lambda units: {"units": units}, **more)

    def training_step(self, model: nn.Module, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        model.eval()
        units, handle = inputs["units"], self.handle
        batch, calls = ready(rows.batch_of(units, handle.dtype), self.calls, self.recipe.weights)
        totals: dict[str, float] = {"loss": 0.0}
        if calls and units[0].states:
            values = rows.values_from_states(handle.head, units, batch, self.recipe.learns)
            self._learn({"values": values.to(handle.dtype), "logprobs": batch.weights}, batch, calls, totals)
        elif calls:
            needs = (
                find("loss", self.calls[0].name).needs if handle.head is not None else loss_needs(calls)
            )  # no loss of a head reads words
            for part in handle._split(batch, handle.micro_tokens)[0]:
                small, _ = handle._micro(batch, part)
                with handle.cast():
                    self._learn({"logprobs": small.weights, **model(small, needs, part.trie)}, small, calls, totals)
        if not np.isfinite(totals["loss"]):
            raise Broke(f"The loss is {totals['loss']} at step {self.state.global_step + 1}; lower train.lr, or look at that batch.")
        self.seen(self.state.global_step + 1, totals)
        return torch.tensor(totals["loss"], device=handle.device)

    def _learn(self, out: dict[str, torch.Tensor], batch: Any, calls: Sequence[LossCall], totals: dict[str, float]) -> None:
        value, metrics = total_loss(calls, out, batch, self.handle.losses)
        if value.requires_grad:
            self.accelerator.backward(value)
        for name, number in metrics.items():
            totals[name] = totals.get(name, 0.0) + float(number)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """That of the backend: matrices decay, vectors do not."""
        if self.optimizer is None:
            self.optimizer = self.handle._optimizer()
            for group in self.optimizer.param_groups:
                group["lr"], group["weight_decay"] = self.args.learning_rate, self.args.weight_decay if group["decays"] else 0.0
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # it is in its order already

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file

        path = Path(output_dir or str(self.args.output_dir))
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().contiguous() for name, p in self.handle._moved().items()}, path / "learns.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.handle._load_tensors(Path(resume_from_checkpoint) / "learns.safetensors", self.handle._moved())


@dataclass
class Result:
    """folder: of the fitted model.  curve: the metrics of each step.  held_out: what it came to on examples that it did not see.
    rejected: rows that were left out.  warnings: rows that were cut."""

    folder: Path
    curve: list[dict[str, float]]
    held_out: dict[str, Any]
    rejected: list[files.Rejected]
    warnings: list[str]


def fit(
    recipe: str | Path | Mapping[str, Any] | FitRecipe | None = None,
    *overrides: str,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    layout: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    **fields: Any,
) -> Result:
    """Fit a reward model, and write `folder` (fits/NAME-N unless given), which `reward_model(path=...)` and transformers open.

    The recipe is a YAML file, a mapping, or its fields as keywords. resume: the folder of a fit that was stopped. layout: of data files
    whose columns fit several. Raises Refused before anything is begun, Broke when a fit cannot go on; what was done before is kept.
    """
    given: Any = {**(recipe if isinstance(recipe, Mapping) else {}), **fields} if fields else recipe
    spec, path = prepare(given, overrides, folder, resume, layout)
    data, held = load(spec)
    model = open_model(spec)
    units, cut = rows.tokenise(model, data.examples, spec.train.max_tokens)
    apart, more = rows.tokenise(model, held.examples, spec.train.max_tokens)
    for text in (cut := cut + more)[:3]:
        warnings.warn(text, stacklevel=2)
    path.mkdir(parents=True, exist_ok=True)
    replace_file(path / "fit.yaml", yaml.safe_dump(plain(spec), sort_keys=False, allow_unicode=True).encode())
    files.merged([data, held]).keep_aside(path / "rejected.jsonl")
    say(f"{len(units)} examples to learn from, {len(apart)} held out")
    fill(model, spec, units + apart)
    try:
        curve = train(model, spec, units, path)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; `guerdon fit --resume {path}` goes on from its last checkpoint.") from None
    except OSError as error:
        raise Broke(f"{path} could not be written ({error.strerror or error}); make room, then `guerdon fit --resume {path}`.") from error
    values = rows.read_values(model, apart, spec.learns) if spec.heads else rows.read_ratios(model, apart, spec.settings["beta"])
    found = evaluated(spec, apart, values)
    card = card_of(spec, model, found)
    (path / "README.md").write_text(folders.readme(spec.name, lines(spec, data, held, len(apart), curve, found)))
    folders.write(model, card, path)  # behind the model card: a folder with a `fitted.json` is whole
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    return Result(path, curve, found, data.rejected + held.rejected, cut)


def prepare(recipe: Any, overrides: Sequence[str], folder: Any, resume: Any, layout: str | None) -> tuple[FitRecipe, Path]:
    """The checked recipe and the folder of its fit, which is new, or the same fit's."""
    if resume is not None:
        path, file = Path(resume), Path(resume) / "fit.yaml"
        if not file.exists():
            raise Refused(f"{path} is no fit that could go on: it has no fit.yaml; name a folder that `guerdon fit` began.")
        if (path / heads.CARD).exists():
            raise Refused(f"The fit in {path} is finished; score with reward_model(path='{path}'), or start another one.")
        saved = yaml.safe_load(file.read_text())
        spec = read(recipe if recipe is not None else saved, overrides, layout)
        if changed := differing(saved, plain(spec)):
            raise Refused(f"{path} was begun with another recipe; these fields differ: {', '.join(changed)}. Put them back, or start anew.")
        return spec, path
    if recipe is None:
        raise Refused("Nothing to fit: give a recipe file, or a folder with --resume.")
    spec = read(recipe, overrides, layout)
    path = Path(folder) if folder is not None else new_folder(Path("fits"), spec.name)
    if (path / "fit.yaml").exists():
        raise Refused(f"{path} already holds a fit; go on with `--resume {path}`, or name another folder.")
    return spec, path


def load(spec: FitRecipe) -> tuple[files.Data, files.Data]:
    """(what is learnt, what is held out): no prompt is in both."""
    valid, allowed = spec.labels()

    def one(d: FitData) -> files.Data:
        return files.load(d.path, spec.kind, d.layout, d.labels, d.label, d.limit, d.values, valid, allowed)

    data = files.merged([one(d) for d in spec.data])
    if isinstance(spec.held_out, list):
        held = files.merged([one(d) for d in spec.held_out])
        seen = {orjson.dumps(e.prompt) for e in data.examples}
        if both := next((e for e in held.examples if orjson.dumps(e.prompt) in seen), None):
            raise Refused(f"held_out: the prompt of {both.file}, row {both.row}, is also in `data`; hold out prompts that are not learnt.")
        return data, held
    groups = 1 + max(e.group for e in data.examples)
    apart = set(np.random.default_rng(spec.seed).permutation(groups)[: round(spec.held_out * groups)].tolist())
    if len(apart) == groups:
        raise Refused(f"held_out: {spec.held_out:g} of {groups} prompts leaves none to learn from; give more data, or held_out: 0.")
    held = files.Data([e for e in data.examples if e.group in apart])
    data.examples = [e for e in data.examples if e.group not in apart]
    return data, held


def open_model(spec: FitRecipe) -> Any:
    """The model with its head. Raises Refused where the tokenizer is not the model's."""
    source: Any = spec.model.path
    if spec.model.tokenizer is not None:
        from transformers import AutoTokenizer

        kind = torch.float64 if spec.model.params.get("dtype") == "float64" else torch.float32
        try:
            where, more = (spec.model.tokenizer, {}) if Path(spec.model.tokenizer).is_dir() else locate(spec.model.tokenizer)
            with quiet():
                source = load_pretrained(source, kind)[0], AutoTokenizer.from_pretrained(where, **more)
        except (OSError, ValueError) as error:
            raise Refused(f"model: the tokenizer {spec.model.tokenizer!r} cannot be opened: {str(error).splitlines()[0]}") from error
    more = {"classes": len(spec.classes)} if spec.classes else {}
    model = local(source, head=spec.heads, seed=spec.seed, **more, **spec.model.params)  # type: ignore[arg-type]
    known, vocabulary = model.tokens.tokenizer.get_vocab(), model.causal.get_input_embeddings().num_embeddings
    if (most := max(known.values(), default=0)) >= vocabulary:
        raise Refused(f"model: its tokenizer has the token {most}, and the model knows {vocabulary}: it is the tokenizer of another model.")
    end = model.causal.config.get_text_config().eos_token_id
    if isinstance(end, int) and model.tokens.tokenizer.eos_token_id not in (None, end):
        raise Refused(
            f"model: it ends texts with token {end}, and its tokenizer with {model.tokens.tokenizer.eos_token_id}: it is the tokenizer of "
            "another model; name the model's own, or leave out `tokenizer`."
        )
    folders.pad_token(model)
    if spec.body == "frozen":
        model.causal.requires_grad_(False)
    if model.head is not None and spec.learns in ("pairs", "outcomes") and isinstance(model.head, nn.Linear):
        model.head.bias.requires_grad_(False)  # heads ForSequenceClassification have none
    return model


def fill(model: Any, spec: FitRecipe, units: Sequence[Unit]) -> None:
    """What the loss needs beside the labels: labels of tokens, log-probabilities of the model as it starts, states of a frozen body."""
    if spec.learns == "tokens":
        rows.label_tokens(units)
    with meter("examples") as progress:
        if "ref_logprobs" in spec.about.get("fields", ()):
            for at in range(0, len(units), 64):
                some = units[at : at + 64]
                found = iter(model.forward(rows.batch_of(some), ("logprobs",))[0]["logprobs"].double().cpu().numpy())
                for u in some:
                    u.fields = [{"ref_logprobs": row[: len(s.ids)]} for s, row in zip(u.samples, found, strict=False)]  # type: ignore[arg-type]
                progress((at + len(some)) / len(units), at + len(some))
        if spec.body == "frozen":
            rows.cache_states(model, units, spec.learns, done=lambda n: progress(n / len(units), n))


def train(model: Any, spec: FitRecipe, units: Sequence[Unit], path: Path) -> list[dict[str, float]]:
    """Drive Trainer through all batches, from the last whole checkpoint on; the metrics of every step."""
    t, log = spec.train, path / "metrics.jsonl"
    last = latest(path / "checkpoints")
    done = int(last.name.rpartition("-")[2]) if last else 0
    kept = [row for row in read_jsonl(log) if row["step"] <= done] if log.exists() else []
    replace_file(log, b"".join(orjson.dumps(row) + b"\n" for row in kept))
    file = log.open("ab")

    def seen(step: int, totals: dict[str, float]) -> None:
        kept.append({"step": step, **totals})
        file.write(orjson.dumps(kept[-1]) + b"\n")
        file.flush()

    taken = rows.order(len(units), t.epochs, spec.seed)
    args = TrainingArguments(
        output_dir=str(path / "checkpoints"),
        per_device_train_batch_size=t.batch,
        num_train_epochs=1,  # the order holds all epochs
        learning_rate=t.lr,
        lr_scheduler_type="constant_with_warmup" if t.schedule == "constant" else t.schedule,
        warmup_steps=t.warmup,
        max_grad_norm=t.clip or 0.0,
        weight_decay=t.weight_decay,
        save_steps=t.checkpoint_every,
        save_total_limit=2,
        logging_steps=10,
        report_to=t.trackers or "none",
        seed=spec.seed,
        remove_unused_columns=False,
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    with file, quiet():
        fitter = Fitter(model, spec, seen, args=args, train_dataset=[units[i] for i in taken], callbacks=[Meter()])
        for printing in (PrinterCallback, ProgressCallback):
            fitter.remove_callback(printing)
        fitter.train(resume_from_checkpoint=str(last) if last else None)
    return kept


def latest(path: Path) -> Path | None:
    """The last whole checkpoint: Trainer writes its state at the end."""
    found = [p for p in path.glob("checkpoint-*") if (p / "trainer_state.json").exists()]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


class Meter(TrainerCallback):
    """A progress bar in the place of Trainer's, whose lines go to standard output."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("Fitting", total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.bar.stop()


def card_of(spec: FitRecipe, model: Any, found: Mapping[str, Any]) -> folders.Card:
    grain = {"pairs": "outcome", "outcomes": "outcome", "steps": "step", "tokens": "token"}[spec.learns]
    return folders.Card(
        grain=grain,  # type: ignore[arg-type]
        head=spec.heads,
        loss=json.dumps({"use": spec.loss.use, **spec.loss.params}),
        probability=spec.about.get("takes") == "0 to 1",
        classes=spec.classes,
        temperature=found.get("temperature", 1.0),
        max_tokens=spec.train.max_tokens,
        tokenizer=folders.tokenizer_digest(model),
        beta=spec.settings.get("beta"),
        reference=None if spec.heads else spec.model.path,
    )
