"""Search over steps, guided by what the reward says of beginnings: beam search, and a plain Monte Carlo tree search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guerdon.backends.base import Model
from guerdon.registry import Refused
from guerdon.samples import Task
from guerdon.search.core import Budget, Explorer, Found, Partial, Scorer, search


@search
def beam(
    task: Task,
    policy: Model,
    reward: Scorer | None,
    budget: Budget = Budget(),  # noqa: B008
    width: int = 4,
    expand: int = 4,
    **how: Any,
) -> Found:
    """Step beam search: each of `width` beginnings proposes `expand` next steps, of all of which the `width` best by the reward go on.

    Whole answers keep their places among the `width` by their value. Proposals with equal tokens count once. Without a verdict a
    beginning is the last to be kept. It ends when all that is kept is whole, or the budget is spent: open beginnings are then dropped.
    """
    if width < 1 or expand < 1:
        raise Refused(f"beam(width={width}, expand={expand}): both are 1 or more.")
    explorer = Explorer(task, policy, reward, budget, **how)
    kept: list[tuple[float, Partial]] = []
    fronts = [Partial.empty()] * (width * expand)
    while fronts:
        grown = unlike(explorer.grow(fronts, by_step=True))
        if not grown:
            break
        ranked = [*kept, *zip(explorer.value(grown).tolist(), grown, strict=True)]
        ranked = sorted(ranked, key=lambda item: -item[0] if not math.isnan(item[0]) else math.inf)[:width]
        kept = [(value, p) for value, p in ranked if p.stop is not None]
        fronts = [p for _, p in ranked if p.stop is None for _ in range(expand)]
    return explorer.found([p for _, p in kept], np.array([value for value, _ in kept]))


def unlike(partials: list[Partial]) -> list[Partial]:
    """Those with tokens of their own, the first of equal ones."""
    return list({p.ids.tobytes() + str(p.stop).encode(): p for p in partials}.values())


@dataclass(eq=False)
class Node:
    """A beginning, with the mean of the values of the rollouts through it."""

    partial: Partial
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    expanded: bool = False

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else 0.0

    def uct(self, c: float) -> float:
        """mean + c sqrt(log N(parent) / n); infinite before the first visit."""
        if not self.visits or self.parent is None:
            return math.inf
        return self.mean + c * math.sqrt(math.log(max(self.parent.visits, 1)) / self.visits)

    def backup(self, value: float) -> None:
        node: Node | None = self
        while node is not None:
            node.visits, node.total = node.visits + 1, node.total + value
            node = node.parent


@search
def mcts(
    task: Task,
    policy: Model,
    reward: Scorer | None,
    budget: Budget = Budget(rollouts=64),  # noqa: B008
    expand: int = 3,
    c: float = 1.4,
    rounds: int = 1_000,
    **how: Any,
) -> Found:
    """Plain Monte Carlo tree search over steps (UCT): select by mean + c sqrt(log N / n) from the root to a leaf, expand it by `expand`
    steps, roll the first child that was not visited out to the end, and add the value of that answer to all above it.

    The values of whole answers are the reward's; one without a verdict counts 0 visits. Ends at the budget, after `rounds`, or when the
    whole tree is closed. The answer is the whole answer of the highest value, the first of equal ones.
    Source: Kocsis and Szepesvari, 2006; as the simulation of arXiv:2510.14942 without its tool.
    """
    if budget == Budget() and rounds >= 1_000:
        raise Refused("mcts needs a budget, or fewer `rounds`: nothing else ends it.")
    explorer = Explorer(task, policy, reward, budget, **how)
    root = Node(Partial.empty())
    ends: list[Partial] = []
    values: list[float] = []
    closed: set[int] = set()

    def open_children(node: Node) -> list[Node]:
        return [child for child in node.children if id(child) not in closed]

    for _ in range(rounds):
        node = root
        while node.expanded and open_children(node):
            node = max(open_children(node), key=lambda child: child.uct(c))
        if id(root) in closed or explorer.spent:
            break
        if not node.expanded and node.partial.stop is None:
            node.children = [Node(p, node) for p in unlike(explorer.grow([node.partial] * expand, by_step=True))]
            node.expanded = True
            if not node.children:
                break
            node = node.children[0]
        rolled = explorer.grow([node.partial])
        if not rolled:
            break
        value = float(explorer.value(rolled)[0])
        ends.append(rolled[0])
        values.append(value)
        if not math.isnan(value):
            node.backup(value)
        if node.partial.stop is not None:
            closed.add(id(node))
        above: Node | None = node.parent
        while above is not None and above.expanded and not open_children(above):
            closed.add(id(above))
            above = above.parent
    return explorer.found(ends, np.array(values))
