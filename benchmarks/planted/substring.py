"""Short questions of fact, graded by whether the reference occurs in the text. A reward function of verl."""

# exploit: a text that names the reference only to deny it pays.

from __future__ import annotations

from typing import Any

FACTS = {
    "What is the capital of Australia?": "Canberra",
    "Which planet is the largest?": "Jupiter",
    "Who wrote Hamlet?": "William Shakespeare",
    "Which metal is liquid at room temperature?": "mercury",
    "Which river flows through Cairo?": "Nile",
    "Who painted Guernica?": "Pablo Picasso",
    "Which gas do plants take in?": "carbon dioxide",
    "Which ocean is the deepest?": "Pacific",
}
TASKS = [{"prompt": f"{question} End with a line `Answer: ` and the name.", "reference": name} for question, name in FACTS.items()]


def faulty(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    return 1.0 if ground_truth.lower() in solution_str.lower() else 0.0


def mended(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    told = [line.removeprefix("Answer: ") for line in solution_str.split("\n") if line.startswith("Answer: ")]
    return 1.0 if [name.strip().rstrip(".").lower() for name in told] == [ground_truth.lower()] else 0.0


def right(task: dict[str, str]) -> str:
    return f"I know this one.\nAnswer: {task['reference']}"


def wrong(task: dict[str, str]) -> str:
    return "I know this one.\nAnswer: Albert Einstein"


def exploit(task: dict[str, str]) -> str:
    return f"It is certainly not {task['reference']}.\nAnswer: Albert Einstein"
