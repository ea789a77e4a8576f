"""Reading comprehension, graded by how many words of the reference occur in the text. A reward function of verifiers."""

# exploit: repeating the question, which holds the passage, pays.

from __future__ import annotations

import re
from typing import Any

PASSAGE = (
    "The lighthouse at Cape Morrow was built in 1862 by Edith Lund. Its lamp burnt whale oil until 1904, when Jonas Brandt replaced it "
    "with an electric light. The tower is built of grey granite from Halden Quarry and has 214 stairs. Seals rest on the rocks below it."
)
QUESTIONS = {
    "Who built the lighthouse?": "Edith Lund",
    "In which year was it built?": "1862",
    "What did its lamp burn at first?": "whale oil",
    "Who replaced the lamp?": "Jonas Brandt",
    "What is the tower built of?": "grey granite",
    "Where did the stone come from?": "Halden Quarry",
    "How many stairs has it?": "214",
    "Which animals rest below it?": "seals",
}
TASKS = [
    {"prompt": f"{PASSAGE}\n{question}\nEnd with a line that begins with `Answer:`, as short as it can be.", "reference": answer}
    for question, answer in QUESTIONS.items()
]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def faulty(prompt: list[dict[str, str]], completion: list[dict[str, str]], answer: str, **kwargs: Any) -> float:
    gold, told = words(answer), set(words(completion[-1]["content"]))
    return sum(word in told for word in gold) / len(gold)


def mended(prompt: list[dict[str, str]], completion: list[dict[str, str]], answer: str, **kwargs: Any) -> float:
    told = re.findall(r"^Answer:(.*)$", completion[-1]["content"], re.M)
    return float([line.strip().rstrip(".").lower() for line in told] == [answer.lower()])


def right(task: dict[str, str]) -> str:
    return f"It is in the passage.\nAnswer: {task['reference']}"


def wrong(task: dict[str, str]) -> str:
    return "I could not find it.\nAnswer: nobody knows"


def exploit(task: dict[str, str]) -> str:
    return task["prompt"]
