"""GRPO-CARE: where a shortcut gives the answer away, outcome alone does not teach to think it; the consistency bonus does.

A table (`_thought_table`) thinks one of four words, which is the answer it implies, and then answers: rightly 9 times in 10 after the
right thought, 8 times in 10 after a wrong one, by a shortcut in the prompt. A table has a row a prompt, so a split without the shortcut is
not measured.
"""

from __future__ import annotations

from typing import Any

from _thought_table import frame, learn, one_word, table

from guerdon.rewards.core import reward
from guerdon.samples import Task

CLAIM = "after 40 steps answers equal what the thought implies at least 0.15 more often, with accuracy within 0.03 (every seed)"
BASELINE = "GRPO on exact match alone"
METHOD = (
    "exact | care(answer_likelihood) of a slowly averaged reference; without its key term: every right answer paid the bonus (margin 1)"
)
SEEDS = (0, 1, 2)
REWARDS = {
    "baseline": "exact", "method": "exact | care(answer_likelihood)", "ablated": "exact | care(answer_likelihood, margin=1)",
}  # fmt: skip
WORDS = ["a", "b", "c", "d"]


@reward(inline=True)
def consistent(thinking: str, answer: str | None) -> float:
    return float(answer is not None and thinking.strip() == answer)


def measure(variant: str, seed: int) -> dict[str, Any]:
    model, tasks = table(WORDS), [Task(str(i), f"task {i}", WORDS[(i + seed) % 4]) for i in range(4)]
    for task in tasks:
        for opening in frame(model, task, WORDS):
            thought, right = opening[1], str(task.reference)
            shares = {right: 0.9} if thought == right else {right: 0.8, thought: 0.15}
            one_word(model, task, opening, shares, WORDS)
    rows = learn(
        model, tasks, seed, {"reference": {"of": "policy", "every": 10, "tau": 0.005}}, reward=REWARDS[variant], correct="exact",
        aggregate="sequence_mean", train={"steps": 40, "samples": 8}, eval={"gold": "consistent"},
    )  # fmt: skip
    found = [row for row in rows if "eval/gold" in row]
    return {"value": found[-1]["eval/gold"], "before": found[0]["eval/gold"], "accuracy": found[-1]["eval/pass@1"]}


def holds(baseline: list[Any], method: list[Any]) -> bool:
    pairs = list(zip(baseline, method, strict=True))
    return all(m["value"] >= b["value"] + 0.15 and abs(m["accuracy"] - b["accuracy"]) <= 0.03 for b, m in pairs)
