"""Guess the number: each guess is answered `higher`, `lower` or `right`; who halves what is left needs the fewest.

    1 to 16            the prompt
    8                  written by the policy
    higher             the tool's reply
    12
    right              ends the sample

The number is the task's own and is not in its prompt. `left_after` knows what a run of replies has told, and so what each question was
worth.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from guerdon.envs.core import env
from guerdon.envs.tools import Reply, Turn, tool
from guerdon.registry import Refused
from guerdon.samples import Task

HIGHER, LOWER, RIGHT, UNREAD = "higher", "lower", "right", "?"


@env
def guess(n: int, high: int = 16, seed: int = 0) -> list[Task]:
    """`n` tasks with a number from 1 to `high` each; the same arguments give the same tasks. Raises `Refused` on n < 0 and high < 2.

    `reference` is the number; `meta` has high and solution (the guesses of bisection).
    """
    if n < 0 or high < 2:
        raise Refused(f"guess(n={n}, high={high}): write n of 0 or more and high of 2 or more.")
    rng = random.Random(f"guess {seed}")
    numbers = [rng.randint(1, high) for _ in range(n)]
    return [Task(f"guess-{seed}-{i}", f"1 to {high}", str(x), {"high": high, "solution": bisect(x, high)}) for i, x in enumerate(numbers)]


def words(high: int) -> list[str]:
    """Every word of this world: a vocabulary for a table."""
    return [HIGHER, LOWER, RIGHT, UNREAD, *map(str, range(1, high + 1))]


@tool(inline=True, name="guess")
def answer_guess(text: str, task: Task, history: Sequence[Turn]) -> Reply:
    """`higher`, `lower`, or `right`, which ends; `?` where the turn is no number."""
    number, secret = _number(text), int(task.reference)
    if number is None:
        return Reply(UNREAD)
    return Reply(RIGHT, done=True) if number == secret else Reply(HIGHER if number < secret else LOWER)


def _number(text: str) -> int | None:
    said = text[:200].split()
    return int(said[0]) if len(said) == 1 and len(said[0]) <= 9 and said[0].isascii() and said[0].isdigit() else None


def left_after(history: Sequence[Turn], high: int) -> tuple[int, int]:
    """(lowest, highest) number that the replies leave possible."""
    low = 1
    for turn in history:
        number = _number(turn.text)
        if number is not None and turn.reply == HIGHER:
            low = max(low, number + 1)
        elif number is not None and turn.reply == LOWER:
            high = min(high, number - 1)
        elif number is not None and turn.reply == RIGHT:
            low = high = number
    return low, high


def bisect(secret: int, high: int) -> list[str]:
    """The guesses of who halves what is left each time, the last one right: at most floor(log2 high) + 1."""
    low, guesses = 1, []
    while not guesses or guesses[-1] != str(secret):
        middle = (low + high) // 2
        guesses.append(str(middle))
        low, high = (middle + 1, high) if middle < secret else (low, middle - 1)
    return guesses
