"""The tiny policy taught to waste tokens: it writes lines again and again, at times leaves one out, and knows what a budget is."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from pathlib import Path

from guerdon.envs.arithmetic import arithmetic
from guerdon.envs.tiny import cache_folder, tiny_policy
from guerdon.samples import Task

LEFT_OUT, AGAIN, MOST = 0.12, 0.6, 5
"""Share of lines left out, which makes the next one hard; chance that a line is written once more, up to MOST times."""
BUDGETS, HINT = (12, 16, 24, 32), "<{budget}>\n"
"""Half of the lessons have a budget behind the prompt: the least one that their solution keeps, or the largest."""


def lesson(task: Task, rng: random.Random) -> Task:
    """The task with a wordy solution in `meta["wordy"]`."""
    *lines, answer = task.meta["solution"]
    text = []
    for line in lines:
        times = 0 if rng.random() < LEFT_OUT else 1
        while times and times < MOST and rng.random() < AGAIN:
            times += 1
        text += [line] * times
    text.append(answer)
    prompt = str(task.prompt)
    if rng.random() < 0.5:
        length = len("\n".join(text)) + 1
        prompt += HINT.format(budget=next((b for b in BUDGETS if length <= b), BUDGETS[-1]))
    return Task(task.id, prompt, task.reference, {**task.meta, "wordy": text})


def wordy_policy() -> Path:
    """The folder of the policy; taught on first use (a few minutes on a core), then cached."""
    from guerdon.training.run import train

    tiny = tiny_policy()
    key = hashlib.blake2b(Path(__file__).read_bytes() + tiny.name.encode(), digest_size=6).hexdigest()
    folder = cache_folder() / f"wordy-{key}"
    if folder.exists():
        return folder
    rng = random.Random("wordy")
    tasks = [lesson(task, rng) for task in arithmetic(12_000, steps=(1, 3), low=1, high=9, ops="+-", within=(0, 20))]
    with tempfile.TemporaryDirectory() as run:
        train(
            name="wordy", seed=0, threads=1, models={"policy": {"path": "tiny"}}, tasks=tasks, credit=None, loss="sft",
            rollout={"use": "expert", "column": "wordy"}, reward="1",
            train={"steps": 500, "prompts": 32, "samples": 1, "lr": 1e-3, "schedule": "linear", "warmup": 10,
                   "samples_every": 1000, "checkpoint_every": 1000},
            folder=Path(run) / "run",
        )  # fmt: skip
        draft = Path(tempfile.mkdtemp(prefix=".wordy-", dir=folder.parent))
        shutil.copytree(next((Path(run) / "run" / "checkpoints").rglob("config.json")).parent, draft, dirs_exist_ok=True)
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.exists():  # otherwise another process was first, with the same weights
            raise
    return folder
