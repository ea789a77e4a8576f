"""One GRPO step, guerdon beside TRL's GRPOTrainer: same model, prompts, group size and token limit, every completion as long as the limit.

Each side runs through its own trainer in its own process, in turn, five times; a process reports the median of its steps and its peak
memory, and the bars are medians over the processes. TRL runs at its quickest: no reference model, no gradient checkpointing, nothing
logged; guerdon writes its run folder, but no samples and no checkpoint before the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 5
PEER = Path(__file__).parents[1] / ".bench" / "grpo_step"


@dataclass(frozen=True)
class Setting:
    """k prompts, g samples of each, t tokens; steps that warm up and steps that count in one process."""

    prompts: int
    samples: int
    tokens: int
    warm: int
    steps: int
    faster: float


SETTINGS = {"tiny": Setting(16, 8, 6, 3, 15, 2.0), "smollm2": Setting(2, 8, 24, 1, 2, 1.2)}


def prompts(name: str) -> list[str]:
    """Enough for every step; those for SmolLM2 have more than 100 tokens."""
    from guerdon.envs.arithmetic import arithmetic

    sums = [str(task.prompt) for task in arithmetic(64, steps=(3, 4), seed=1)]
    if name == "tiny":
        return sums
    asked = (
        "Work out the chain of operations below from left to right. Write every step on a line of its own, keep the whole chain in each "
        "line, replace only the operation that you have just worked out, and do not skip a step even where it looks easy. "
        "A multiplication binds stronger than an addition. When one number is left, write it on the last line, alone, without words or "
        "units, and stop there. "
    )
    return [f"{asked}The chain is {chain.strip()} and its value must be a whole number.\n" for chain in sums]


def worth(text: str) -> float:
    """The reward of both sides: how many different characters, so that no group is all equal."""
    return len(set(text)) / 10


def make_models(folder: Path) -> dict[str, Path]:
    """The two models as folders that both sides open: random weights of 1.8 M parameters, and SmolLM2 as packaged."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from guerdon.backends.resolve import load_pretrained
    from guerdon.envs.tiny import tokenizer

    characters = tokenizer()
    torch.manual_seed(0)
    size: dict[str, Any] = dict(hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6)
    tiny = LlamaForCausalLM(LlamaConfig(vocab_size=len(characters), bos_token_id=None, eos_token_id=1, pad_token_id=0, **size))
    for name, (model, tokens) in {"tiny": (tiny, characters), "smollm2": load_pretrained("smollm2", torch.float32)}.items():
        model.save_pretrained(folder / name)
        tokens.save_pretrained(folder / name)
    return {name: folder / name for name in SETTINGS}


def guerdon(name: str, path: Path, setting: Setting) -> list[float]:
    """Seconds from the end of one step to the end of the next, through `guerdon.train`."""
    import numpy as np

    import guerdon as g
    from guerdon.backends.base import backend
    from guerdon.backends.local import local

    @backend
    def endless(path: str, **params: Any) -> Any:
        model = local(path, **params)
        model.tokens.ends = np.array([], dtype=np.int64)
        return model

    class Clock:
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_start(self, recipe: Any, folder: Path, step: int, total: int) -> None: ...
        def on_event(self, step: int, kind: str, text: str) -> None: ...
        def on_end(self) -> None: ...
        def on_step(self, values: Any) -> None:
            self.ends.append(time.perf_counter())

    clock = Clock()
    many = setting.warm + setting.steps
    with tempfile.TemporaryDirectory() as folder:
        g.train(
            models={"policy": {"backend": "endless", "path": str(path)}},
            tasks=[g.Task(str(i), prompt) for i, prompt in enumerate(prompts(name))],
            reward=g.reward(worth),
            rollout={"use": "parallel", "max_tokens": setting.tokens},
            credit="grpo",
            loss="ppo_clip",
            train={
                "steps": many,
                "prompts": setting.prompts,
                "samples": setting.samples,
                "lr": 1e-6,
                "samples_every": 1000,
                "checkpoint_every": 1000,
            },
            eval={"every": 1000},
            folder=Path(folder) / "run",
            trackers=[clock],
        )
    return [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)][-setting.steps :]


def trl(name: str, path: Path, setting: Setting) -> list[float]:
    """The same through TRL's GRPOTrainer."""
    sys.path.insert(0, str(PEER))
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.ends.append(time.perf_counter())

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [worth(text) for text in completions]

    rows = setting.prompts * setting.samples
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=rows,
            num_generations=setting.samples,
            max_completion_length=setting.tokens,
            generation_kwargs={"min_new_tokens": setting.tokens},
            max_steps=setting.warm + setting.steps,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            beta=0.0,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(path, dtype="float32"),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts(name)}),
            processing_class=AutoTokenizer.from_pretrained(path),
            callbacks=[clock],
        )
        trainer.train()
    return [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)][-setting.steps :]


def floor(name: str, path: Path, setting: Setting) -> list[float]:
    """The passes that no step can avoid, by bare transformers: each prompt once and t - 1 single tokens of each row without gradient, then
    the same tokens forward and backward in one piece, with a log-softmax over the vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="float32").eval()
    tokens: Any = AutoTokenizer.from_pretrained(path)
    width = max(len(tokens(prompt)["input_ids"]) for prompt in prompts(name)[: setting.prompts])
    k, g, t = setting.prompts, setting.samples, setting.tokens
    took = []
    for _ in range(setting.warm + setting.steps):
        start = time.perf_counter()
        with torch.no_grad():
            cache = model(torch.full((k, width), 5), logits_to_keep=1).past_key_values
            cache.reorder_cache(torch.arange(k).repeat_interleave(g))
            for _ in range(t - 1):
                model(torch.full((k * g, 1), 5), past_key_values=cache)
        states = model.base_model(torch.full((k, width + g * (t - 1)), 5), use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(states[:, -g * t :])
        logits.log_softmax(-1)[..., 0].sum().backward()
        model.zero_grad()
        took.append(time.perf_counter() - start)
    return took[-setting.steps :]


def peak_mb() -> float:
    """Of this process. On Linux from its own memory map: what `getrusage` says outlives exec, and would be the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


SIDES = {"guerdon": guerdon, "trl": trl, "floor": floor}


def once(side: str, name: str, path: Path) -> dict[str, float]:
    """One side in a process of its own: median seconds a step, peak memory in MB."""
    command = [sys.executable, __file__, "--side", side, "--model", name, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(only: list[str], rounds: int) -> int:
    import torch
    from bars import Bars

    sys.path.append(str(PEER))
    bars = Bars("grpo_step", ("torch", "transformers", "trl"))
    bars.note("threads", torch.get_num_threads())
    bars.note("rounds", rounds)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_models(Path(folder))
        for name in only:
            setting = SETTINGS[name]
            found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(rounds):
                for side in SIDES:
                    found[side].append(once(side, name, paths[name]))
            middle = {side: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for side, runs in found.items()}
            rows = setting.prompts * setting.samples
            for side, values in middle.items():
                bars.note(f"{name} {side} seconds a step", values["seconds"])
                bars.note(f"{name} {side} samples a second", rows / values["seconds"])
                bars.note(f"{name} {side} peak MB", values["peak_mb"])
            bars.note(f"{name} guerdon over floor", middle["guerdon"]["seconds"] / middle["floor"]["seconds"])
            bars.bar(f"{name} speed over TRL", middle["trl"]["seconds"] / middle["guerdon"]["seconds"], setting.faster)
            bars.bar(f"{name} memory over TRL", middle["guerdon"]["peak_mb"] / middle["trl"]["peak_mb"], 1.0, higher=False)
    return bars.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SETTINGS, nargs="*", default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--model", choices=SETTINGS)
    parser.add_argument("--path", type=Path)
    given = parser.parse_args()
    if given.side is None:
        sys.exit(main(given.only, given.rounds))
    seconds = SIDES[given.side](given.model, given.path, SETTINGS[given.model])
    print(json.dumps({"seconds": statistics.median(seconds), "peak_mb": peak_mb()}))
