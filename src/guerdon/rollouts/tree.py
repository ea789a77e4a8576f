"""Answers that share their beginnings: trees that branch at steps, at tokens of high entropy, or at chosen tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from guerdon.backends.base import Model, SamplingParams, require
from guerdon.registry import Refused
from guerdon.rollouts.core import completed, distinct_prefixes, place, rollout, seed_of
from guerdon.samples import Context, Sample, Task
from guerdon.spans import Split

CUTS = {
    "lines": ("\n",),
    "sentences": (". ", "! ", "? ", "\n"),
    "thoughts": ("\n\n",),
    "turns": ("<|im_end|>", "<|eot_id|>", "<|end|>"),
}
"""What ends a step, by splitter, where nothing else is said."""


@dataclass(eq=False)
class _Branch:
    """A beginning of an answer."""

    prompt: np.ndarray
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros(0))
    entropy: np.ndarray = field(default_factory=lambda: np.zeros(0))
    version: int = 0
    stop: str | None = None
    forked: int = 0
    """Tokens that it took over from the branch it left."""
    parent: _Branch | None = None

    def until(self, at: int) -> _Branch:
        """What stands before token `at`, to go on from there as a branch of its own."""
        return _Branch(self.prompt, self.ids[:at], self.logprobs[:at], self.entropy[:at], self.version, None, at)


@dataclass(eq=False)
class _Tree:
    """Of one task."""

    root: _Branch
    leaves: list[_Branch] = field(default_factory=list)
    drawn: list[_Branch] = field(default_factory=list)
    spent: int = 0

    def offers(self, budget: int | None) -> bool:
        """Whether it may fork."""
        return budget is None or self.spent < budget


Grow = Callable[[Sequence[tuple[_Tree, _Branch]], bool], list[_Branch]]
"""One continuation of each branch, by one step or to the end."""


@rollout(fills=("forked", "dropped"))
def tree(
    policy: Model, tasks: Sequence[Task], n: int, context: Context, *, by: Literal["steps", "entropy", "tokens"] = "steps",
    branch: int = 2, width: int | None = None, marks: Sequence[str] = ("\n",), distinct: float | None = None, max_tokens: int = 256,
    step_tokens: int = 128, budget_tokens: int | None = None, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0,
    stop: Sequence[str] = (), cut: Sequence[str] = (), split: Split = "lines",
) -> list[Sample]:  # fmt: skip
    """The n leaves of one tree a task, each a whole answer from the prompt on; `path` says which nodes it is made of.

    by "steps": the tree begins with `width` first steps (n of them unless said). At every later level the finished answers leave; each of
    the others proposes `branch` continuations of one step, and of all proposals as many are kept, at random, as leaves are still missing.
    Which are kept is drawn before they are sampled, so a proposal that is dropped costs nothing; a prefix that keeps none is dropped with
    its tokens. A step ends behind one of the texts `cut` (by default that of the splitter: a line break for lines) or after step_tokens.
    distinct: of the continuations of one prefix, a later one whose words have a Jaccard similarity above it to an earlier one's is dropped,
    and its place goes to a proposal that was not kept. Places that nobody fills are open again at the next level, and leaves that are
    missing in the end are answers of their own.

    by "entropy": `width` whole answers (n / (branch + 1) unless said); then each answer is left at its `branch` tokens of highest entropy,
    where the token is drawn again and a new answer goes on from there, which is then left in the same way, until there are n; every
    answer's first place comes before any one's second. by "tokens": the same behind the texts `marks`, at `branch` of them in each answer,
    taken at random. A new answer may repeat by chance tokens of the one that it left; `usage` then counts these again.

    Every level is one call of the backend for all tasks, and siblings have random numbers of their own. budget_tokens: a task on whose tree
    so many tokens were drawn forks no more; it may then have fewer than n leaves. meta "forked": how many tokens a leaf took over from
    the branch that it left. meta "dropped": how many distinct prefixes were drawn for its tree that no leaf has; without `distinct`
    `usage` counts, by steps, the leaves' distinct prefixes and these, each once.
    Source: arXiv:2510.26020 (PORTool, steps), 2601.06922 (TreePS-RAG, `distinct`), 2506.11902 (TreeRL, entropy).
    """
    if by not in ("steps", "entropy", "tokens"):
        raise Refused(f"tree(by={by!r}): a tree branches by steps, entropy or tokens.")
    if min(branch, max_tokens, step_tokens, width or 1) < 1:
        raise Refused(f"tree(branch={branch}, width={width}, max_tokens={max_tokens}, step_tokens={step_tokens}): each is 1 or more.")
    if by == "entropy":
        require("policy", policy, "The rollout tree(by='entropy')", ("entropy",))
    if by == "tokens" and not any(marks):
        raise Refused("tree(by='tokens'): give one or more texts in `marks`, behind which the tree may branch.")
    seed = seed_of(context)
    rng = np.random.default_rng(seed)
    want = ("entropy",) if by == "entropy" else ()
    steps = (*(cut or CUTS.get(split, ())), *stop)

    def grow(asked: Sequence[tuple[_Tree, _Branch]], by_step: bool) -> list[_Branch]:
        nonlocal seed
        if not asked:
            return []
        rooms = tuple(max_tokens - len(old.ids) for _, old in asked)
        most, stops = (min(step_tokens, max(rooms)), steps) if by_step else (max(rooms), tuple(stop))
        params = SamplingParams(most, temperature, top_p, top_k, stops, seed, rooms)
        seed += 1
        completions, usage = policy.sample([np.concatenate([old.prompt, old.ids]) for _, old in asked], 1, params, want)
        context.spend("rollouts", usage)
        grown = []
        for (one, old), (c,) in zip(asked, completions, strict=True):
            entropy = c.more["entropy"] if want else np.zeros(len(c.ids))
            ids, logprobs = np.concatenate([old.ids, c.ids]), np.concatenate([old.logprobs, c.logprobs])
            child = _Branch(old.prompt, ids, logprobs, np.concatenate([old.entropy, entropy]), c.version, c.stop, old.forked, old)
            over = not len(c.ids)
            if by_step and not over and (c.stop == "length" or (c.stop == "stop" and not _ends(policy, child, stop))):
                over, child.stop = len(child.ids) == max_tokens, None
            child.stop = "length" if over else child.stop
            one.spent += len(c.ids)
            one.drawn.append(child)
            grown.append(child)
        return grown

    trees = [_Tree(_Branch(policy.encode(task.prompt))) for task in tasks]
    if by == "steps":
        _by_steps(policy, trees, n, width or n, branch, budget_tokens, distinct, rng, grow)
    else:

        def places(leaf: _Branch) -> list[int]:
            return (_peaks(leaf) if by == "entropy" else _behind(policy, leaf, marks, rng))[:branch]

        _by_places(trees, n, width or -(-n // (branch + 1)), places, budget_tokens, grow)
    samples = []
    for group, (task, one) in enumerate(zip(tasks, trees, strict=True)):
        dropped = distinct_prefixes([b.ids for b in one.drawn]) - distinct_prefixes([leaf.ids for leaf in one.leaves])
        for leaf in one.leaves:
            pieces = [(leaf.ids, leaf.logprobs)]
            sample = completed(policy, task, group, leaf.prompt, pieces, leaf.stop, leaf.version, split)
            sample.meta |= {"forked": leaf.forked, "dropped": dropped}
            samples.append(sample)
    place(samples)
    return samples


def _ends(policy: Model, branch: _Branch, stop: Sequence[str]) -> bool:
    """Whether the answer, and not the step alone, is at its end."""
    text = policy.decode(branch.ids)[0] if stop else ""
    return any(mark in text for mark in stop)


def _by_steps(
    policy: Model, trees: Sequence[_Tree], n: int, width: int, fork: int, budget: int | None, distinct: float | None,
    rng: np.random.Generator, grow: Grow,
) -> None:  # fmt: skip
    """Level by level, every tree at once."""
    fronts = [[tree.root] for tree in trees]
    each = [width for _ in trees]  # proposals of a prefix
    while any(fronts):
        offers = [[old for old in front for _ in range(k)] for front, k in zip(fronts, each, strict=True)]
        offers = [[offer[i] for i in rng.permutation(len(offer))] for offer in offers]
        born: list[list[_Branch]] = [[] for _ in trees]
        while True:
            asked: list[tuple[int, _Branch]] = []
            for i, tree in enumerate(trees):
                slots = n - len(tree.leaves) - len(born[i])
                now, offers[i] = offers[i][:slots], offers[i][slots:]
                asked += [(i, old) for old in sorted(now, key=fronts[i].index)]
            for (i, old), child in zip(asked, grow([(trees[i], old) for i, old in asked], True), strict=True):
                siblings = [other for other in born[i] if other.parent is old]
                if distinct is None or all(_alike(policy, child, other) <= distinct for other in siblings):
                    child.forked = len(old.ids) if siblings else old.forked
                    born[i].append(child)
            if distinct is None or not asked:
                break
        for i, tree in enumerate(trees):
            tree.leaves += [child for child in born[i] if child.stop is not None]
            fronts[i] = [child for child in born[i] if child.stop is None]
            each[i] = fork if tree.offers(budget) else 1
    missing = [(tree, tree.root) for tree in trees if tree.offers(budget) for _ in range(n - len(tree.leaves))]
    for (tree, _), leaf in zip(missing, grow(missing, False), strict=True):
        tree.leaves.append(leaf)


def _alike(policy: Model, a: _Branch, b: _Branch) -> float:
    """Jaccard similarity of the words of two continuations of one prefix; 1 where neither has any."""
    assert a.parent is not None
    x, y = (set(re.findall(r"\w+", policy.decode(one.ids[len(a.parent.ids) :])[0].lower())) for one in (a, b))
    return len(x & y) / len(x | y) if x | y else 1.0


def _by_places(trees: Sequence[_Tree], n: int, chains: int, places: Callable[[_Branch], list[int]], budget: int | None, grow: Grow) -> None:
    """Whole answers, then others that leave them where they offer it: each one's first place, then each one's second ..."""
    offers: list[list[tuple[int, _Branch]]] = [[] for _ in trees]
    asked = [(i, tree.root) for i, tree in enumerate(trees) for _ in range(min(chains, n))]
    while asked:
        for (i, _), leaf in zip(asked, grow([(trees[i], old) for i, old in asked], False), strict=True):
            trees[i].leaves.append(leaf)
            offers[i] += [(rank, leaf.until(at)) for rank, at in enumerate(places(leaf))]
        asked = []
        for i, tree in enumerate(trees):
            slots = n - len(tree.leaves) if tree.offers(budget) else 0
            offers[i].sort(key=lambda offer: offer[0])
            now, offers[i] = offers[i][:slots], offers[i][slots:]
            asked += [(i, old) for _, old in now] or [(i, tree.root)] * slots


def _peaks(leaf: _Branch) -> list[int]:
    """Its own tokens, those of highest entropy first; not the one that it left another branch with."""
    start = leaf.forked + 1 if leaf.forked else 0
    return (np.argsort(-leaf.entropy[start:], kind="stable") + start).tolist()


def _behind(policy: Model, leaf: _Branch, marks: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Its own tokens that stand behind a mark, in random order."""
    text, offsets = policy.decode(leaf.ids)
    ends = [found.end() for mark in marks if mark for found in re.finditer(re.escape(mark), text)]
    found = np.unique(np.searchsorted(offsets[:, 1], ends) + 1).astype(np.int64)
    return rng.permutation(found[(found > leaf.forked) & (found < len(leaf.ids))]).tolist()
