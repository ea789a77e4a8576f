"""Chains of lookups: a table that only a tool can see, followed hop by hop; the answer is where the chain ends.

    k3 3 hops          the prompt: start at k3, follow the table three times
    QUERY k3           written by the policy
    k5                 the tool's reply
    ...
    ANSWER k9          ends the sample

The table is a task's own and is not in its prompt: equal prompts have different answers, and nothing can be learnt by heart. Each key
leads to one of the next `reach` keys in a circle, so that every lookup on the way narrows down the end, by an amount that is known
exactly (`chance`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from guerdon.envs.core import env
from guerdon.envs.tools import Reply, Turn, tool
from guerdon.registry import Refused
from guerdon.samples import Task

QUERY, ANSWER, UNKNOWN = "QUERY", "ANSWER", "none"


@env
def lookup(n: int, keys: int = 16, hops: int = 3, reach: int = 2, starts: int | None = None, seed: int = 0) -> list[Task]:
    """`n` tasks, each with a table of its own; the same arguments give the same tasks.

    keys: their number.  hops: lookups from start to answer.  reach: how many keys each may lead to.  starts: tasks begin at the first so
    many keys alone.  `reference` is the answer; `meta` has table, start, hops, reach and solution (the policy's lines of the shortest way).
    Raises `Refused` on arguments that cannot be met.
    """
    starts = keys if starts is None else starts
    if n < 0 or hops < 1 or not 1 <= reach < keys or not 1 <= starts <= keys:
        raise Refused(
            f"lookup(n={n}, keys={keys}, hops={hops}, reach={reach}, starts={starts}): write n of 0 or more, hops of 1 or more, a reach"
            " from 1 to below the number of keys, and starts from 1 to that number."
        )
    rng = random.Random(f"lookup {seed}")
    tasks = []
    for i in range(n):
        table = {f"k{j}": f"k{(j + rng.randint(1, reach)) % keys}" for j in range(keys)}
        start = at = f"k{rng.randrange(starts)}"
        lines = []
        for _ in range(hops):
            lines.append(f"{QUERY} {at}")
            at = table[at]
        meta = {"table": table, "start": start, "hops": hops, "reach": reach, "solution": [*lines, f"{ANSWER} {at}"]}
        tasks.append(Task(f"lookup-{seed}-{i}", f"{start} {hops} hops", at, meta))
    return tasks


def words(keys: int) -> list[str]:
    """Every word that a policy or the tool writes in this world: a vocabulary for a table."""
    return [QUERY, ANSWER, UNKNOWN, *(f"k{j}" for j in range(keys))]


@tool(inline=True, name="lookup")
def answer_query(text: str, task: Task, history: Sequence[Turn]) -> Reply:
    """The value of k3 for `QUERY k3`, `none` where there is no such key and for anything else; `ANSWER ...` ends."""
    said = text[:200].split()
    if said[:1] == [ANSWER]:
        return Reply(done=True)
    known = said[:1] == [QUERY] and len(said) == 2
    return Reply(str(task.meta["table"].get(said[1], UNKNOWN)) if known else UNKNOWN)


def verify_lookup(text: str, reference: str) -> bool | None:
    """Whether the first `ANSWER` of a completion is followed by the reference; None where there is no answer."""
    said = text.split()
    return None if ANSWER not in said else said[said.index(ANSWER) + 1 :][:1] == [reference]


def chance(at: int, left: int, keys: int, reach: int) -> list[float]:
    """(keys,) the exact chance of each key to be the end, for who stands at key `at` with `left` lookups to go and knows the rule alone."""
    share = [float(j == at % keys) for j in range(keys)]
    for _ in range(left):
        share = [sum(share[(j - d) % keys] for d in range(1, reach + 1)) / reach for j in range(keys)]
    return share
