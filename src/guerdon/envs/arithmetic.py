"""Chain arithmetic in written steps: expressions of chosen length and difficulty, their worked solutions, exact verifiers.

The prompt of `7+5*2-3` is `7+5*2-3=`. Each line of its worked solution is what is left after one more operation, the last one the answer:

    7+10-3
    17-3
    A: 14

A line depends on the line before alone, so that a small model can learn it, and each can be verified exactly.
Source of the generator and of `closeness`: arXiv:2507.10532 (RandomCalculation).
"""

from __future__ import annotations

import hashlib
import math
import operator
import random
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from guerdon.envs.core import env
from guerdon.registry import Refused
from guerdon.samples import Task

BOUND = 10**6
"""No value on the way is larger."""
MAX_STEPS = 20
TIES = {"+": 1, "-": 1, "*": 2, "/": 2}
"""How tightly an operator binds; equal ones from left to right."""

Tree = int | tuple[str, "Tree", "Tree"]
"""A number, or an operator with what stands to its left and right."""
Calculate = Callable[[str, int, int], int]

# Quantifiers are bounded, so matching is linear and no long run of digits ever reaches int().
_NUMBER = re.compile(r"([+-]?[0-9]{1,12})(?:/([0-9]{1,12})|\.([0-9]{1,12}))?")
_TOKEN = re.compile(r"[0-9]{1,12}|[-+*/()]")
_ANSWER = re.compile(r"^A:", re.MULTILINE)


@env
def arithmetic(
    n: int,
    steps: Sequence[int] = (1, 3),
    seed: int = 0,
    low: int = 0,
    high: int = 100,
    ops: str = "+-*",
    within: Sequence[int] = (-BOUND, BOUND),
    brackets: bool = False,
    split: str = "train",
    avoid: Iterable[Task] = (),
) -> list[Task]:
    """`n` distinct tasks of `steps[0]` to `steps[1]` operations, drawn evenly among these numbers; the same arguments give the same tasks.

    low, high: the numbers in the expression.  ops: any of `+-*/`; a division always comes out even.
    within: no value on the way leaves this range.  brackets: trees of any shape, not only chains.
    split: an expression belongs to `train` (nine in ten) or to `test` by its own hash: the two never meet, whatever the seeds.
    avoid: tasks whose prompts are left out too.
    `prompt` is the expression and `=`, `reference` the answer; `meta` has expression, steps (their number) and solution (the lines).
    Raises `Refused` on arguments that cannot be met, such as more tasks than there are expressions.
    """
    _check(n, steps, low, high, ops, within, split)
    rng = random.Random(f"arithmetic {seed} {split}")
    seen = {task.prompt for task in avoid if isinstance(task.prompt, str)}
    draw = _tree if brackets else chain
    tasks: list[Task] = []
    misses = 0
    while len(tasks) < n:
        expression = draw(rng, rng.randint(*steps), low, high, ops, within)
        if expression and f"{expression}=" not in seen and split_of(expression) == split:
            seen.add(f"{expression}=")
            tasks.append(task_of(expression))
            misses = 0
        elif (misses := misses + 1) > 20_000:
            raise Refused(
                f"arithmetic found {len(tasks)} distinct {split} expressions of {steps[0]} to {steps[1]} steps with {ops!r}, numbers {low} "
                f"to {high} and values within {list(within)}, not the {n} asked for; ask for fewer, or widen steps, low, high or within."
            )
    return tasks


def _check(n: int, steps: Sequence[int], low: int, high: int, ops: str, within: Sequence[int], split: str) -> None:
    wrong = None
    if n < 0:
        wrong = f"n={n} must not be negative"
    elif len(steps) != 2 or not 1 <= steps[0] <= steps[1] <= MAX_STEPS:
        wrong = f"steps={list(steps)} must be two numbers, fewest and most, from 1 to {MAX_STEPS}"
    elif not ops or set(ops) - set(TIES):
        wrong = f"ops={ops!r} must be made of {''.join(TIES)!r}"
    elif not 0 <= low <= high <= BOUND:
        wrong = f"low={low} and high={high} must be 0 <= low <= high <= {BOUND}"
    elif len(within) != 2 or not -BOUND <= within[0] <= within[1] <= BOUND:
        wrong = f"within={list(within)} must be two numbers, least and most, from {-BOUND} to {BOUND}"
    elif split not in ("train", "test"):
        wrong = f"split={split!r} must be 'train' or 'test'"
    if wrong:
        raise Refused(f"arithmetic: {wrong}.")


def split_of(expression: str) -> str:
    """`test` for one expression in ten, `train` for the others, by the expression alone."""
    return "test" if hashlib.blake2b(expression.encode(), digest_size=1).digest()[0] < 26 else "train"


def task_of(expression: str) -> Task:
    """The task of an expression that someone wrote. Raises `Refused` where it is none."""
    lines = worked(expression)
    meta = {"expression": expression, "steps": len(lines), "solution": lines}
    return Task(id=f"arithmetic/{expression}", prompt=f"{expression}=", reference=lines[-1].removeprefix("A: "), meta=meta)


def exactly(op: str, a: int, b: int) -> int:
    """a op b. Raises `Refused` where a division does not come out even and beyond `BOUND`."""
    if op == "/":
        if b == 0 or a % b:
            raise Refused(f"arithmetic: {a}/{b} is not a whole number.")
        value = a // b
    else:
        value = {"+": operator.add, "-": operator.sub, "*": operator.mul}[op](a, b)
    if abs(value) > BOUND:
        raise Refused(f"arithmetic: {a}{op}{b} is beyond {BOUND}.")
    return value


def _fits(op: str, a: int, b: int, within: Sequence[int]) -> int | None:
    """a op b, or None where the world does not allow it."""
    try:
        value = exactly(op, a, b)
    except Refused:
        return None
    return value if within[0] <= value <= within[1] else None


def chain(rng: random.Random, steps: int, low: int, high: int, ops: str, within: Sequence[int]) -> str:
    """An expression without brackets, grown from the left, or "" where it got stuck. Its value so far is total, sign, term."""
    total, sign, term = 0, "+", rng.randint(low, high)
    text = str(term)
    if not within[0] <= term <= within[1]:
        return ""
    for _ in range(steps):
        for _ in range(50):
            op, x = rng.choice(ops), rng.randint(low, high)
            if TIES[op] == 2:
                product = _fits(op, term, x, within)
                if product is not None and _fits(sign, total, product, within) is not None:
                    term = product
                    break
            elif within[0] <= x <= within[1]:
                so_far = exactly(sign, total, term)
                if _fits(op, so_far, x, within) is not None:
                    total, sign, term = so_far, op, x
                    break
        else:
            return ""
        text += f"{op}{x}"
    return text


def _tree(rng: random.Random, steps: int, low: int, high: int, ops: str, within: Sequence[int]) -> str:
    """An expression of any shape with no bracket too many, or "" where it got stuck."""

    def grow(k: int) -> tuple[Tree, int] | None:
        if k == 0:
            x = rng.randint(low, high)
            return (x, x) if within[0] <= x <= within[1] else None
        for _ in range(50):
            inner = rng.randrange(k)
            left, right = grow(inner), grow(k - 1 - inner)
            if left is None or right is None:
                return None
            op = rng.choice(ops)
            value = _fits(op, left[1], right[1], within)
            if value is not None:
                return (op, left[0], right[0]), value
        return None

    grown = grow(steps)
    return write(grown[0]) if grown else ""


def write(tree: Tree, first: bool = True) -> str:
    """The text of an expression, no bracket too many. A negative number stands bare only where nothing stands before it (`first`)."""
    if isinstance(tree, int):
        return str(tree) if first or tree >= 0 else f"({tree})"
    op, *sides = tree
    texts = []
    for i, side in enumerate(sides):
        loose = not isinstance(side, int) and TIES[side[0]] < TIES[op] + i  # what stands on the right needs brackets at equal ties too
        texts.append(f"({write(side)})" if loose else write(side, first and i == 0))
    return op.join(texts)


def parse(expression: str) -> Tree:
    """The tree of an expression of 1 to `MAX_STEPS` operations. Raises `Refused`."""
    tokens = _TOKEN.findall(expression[:1000])
    if "".join(tokens) != expression:
        raise Refused(f"arithmetic: {expression[:60]!r} is not an expression of numbers, + - * / and brackets.")
    operands: list[Tree] = []
    waiting: list[str] = []
    before, minus, steps = "(", False, 0
    for token in [*tokens, ""]:
        starts = token.isdigit() or token == "("
        if token == "-" and before == "(" and not minus:
            minus = True
            continue
        if starts == (before == ")" or before.isdigit()) or (minus and not token.isdigit()):
            raise Refused(f"arithmetic: {expression[:60]!r} has {token or 'its end'!r} where it cannot stand.")
        if token.isdigit():
            operands.append(-int(token) if minus else int(token))
            minus = False
        elif token == "(":
            waiting.append(token)
        else:
            while waiting and waiting[-1] != "(" and TIES[waiting[-1]] >= TIES.get(token, 0):
                right, left = operands.pop(), operands.pop()
                operands.append((waiting.pop(), left, right))
            if token in TIES:
                waiting.append(token)
                steps += 1
            elif token and not waiting:
                steps = MAX_STEPS + 1  # a ")" without its "("
                break
            elif token:
                waiting.pop()
        before = token
    if waiting or not 1 <= steps <= MAX_STEPS:
        raise Refused(f"arithmetic: {expression[:60]!r} must have matching brackets and 1 to {MAX_STEPS} operations.")
    return operands[0]


def reductions(tree: Tree, calculate: Calculate = exactly) -> list[Tree]:
    """What may stand after one more operation, for each operation between two numbers, from left to right."""
    if isinstance(tree, int):
        return []
    op, left, right = tree
    if isinstance(left, int) and isinstance(right, int):
        return [calculate(op, left, right)]
    found: list[Tree] = [(op, less, right) for less in reductions(left, calculate)]
    return found + [(op, left, less) for less in reductions(right, calculate)]


def worked(expression: str, calculate: Calculate = exactly) -> list[str]:
    """The lines of the worked solution, always the leftmost operation first. `calculate` may stand in for a teacher who errs."""
    tree, lines = parse(expression), []
    while not isinstance(tree, int):
        tree = _leftmost(tree, calculate)
        lines.append(write(tree))
    return [*lines[:-1], f"A: {lines[-1]}"]


def _leftmost(tree: Tree, calculate: Calculate) -> Tree:
    assert not isinstance(tree, int)
    op, left, right = tree
    if not isinstance(left, int):
        return (op, _leftmost(left, calculate), right)
    return calculate(op, left, right) if isinstance(right, int) else (op, left, _leftmost(right, calculate))


def number(text: str) -> Fraction | None:
    """The number that `text` writes (`-4`, `1/2`, `0.5`; white space around it is free), or None. One of over 12 digits is none."""
    text = text.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        return None
    whole, under, decimals = match.groups()
    if under is not None:
        return Fraction(int(whole), int(under)) if int(under) else None
    return Fraction(int(whole + (decimals or "")), 10 ** len(decimals or ""))


def answer_of(text: str) -> Fraction | None:
    """The number of a completion, or of an answer already cut out of it; None where there is none.

    A completion's first line that begins with `A:` holds it and ends the text: whoever goes on, with a second answer or more, gave none.
    """
    line = _ANSWER.search(text)
    return number(text[line.end() :] if line else text)


def verify_answer(text: str, reference: str) -> bool:
    """True where the answer equals `reference` by value. `text` is a whole completion or its answer alone. Linear in its length."""
    found = answer_of(text)
    return found is not None and found == number(reference)


def verify_steps(steps: Sequence[str], task: Task) -> list[bool]:
    """For each line of a solution: is it right?

    A line is right when it is the last right line before it (at first the expression) with one operation between two numbers, any
    that may be worked now, replaced by its exact value. So whatever builds on a wrong line is wrong, and going back to the last right
    line is right again. The answer is right when it is the value of the last right line and that line has at most one operation left;
    nothing after an answer is right. Linear in the text.
    """
    tree = parse(task.meta["expression"])
    ahead = {write(less): less for less in reductions(tree)}
    verdicts = []
    for step in steps:
        line = step.strip()
        if line.startswith("A:"):
            verdicts.append(number(line[2:]) in [end for end in (tree, *ahead.values()) if isinstance(end, int)])
            break
        verdicts.append(line in ahead)
        if line in ahead:
            tree = ahead[line]
            ahead = {write(less): less for less in reductions(tree)}
    return verdicts + [False] * (len(steps) - len(verdicts))


def closeness(answer: str, reference: str, eps: float = 1e-9) -> float:
    """r = 1 - 0.5 min(|a-b|, 1) - 0.5 min(|a-b| / (|b| + eps), 1), in [0, 1]; 1 only where a = b; 0 where `answer` is no number.

    Source: arXiv:2507.10532 (the form is recalled).
    """
    a, b = answer_of(answer), number(reference)
    if b is None:
        raise Refused(f"closeness: the reference {reference[:60]!r} is not a number; write one such as -4, 1/2 or 0.5.")
    if a is None:
        return 0.0
    if a == b:
        return 1.0
    gap = float(abs(a - b))
    r = 1 - 0.5 * min(gap, 1.0) - 0.5 * min(gap / (float(abs(b)) + eps), 1.0)
    return min(r, math.nextafter(1.0, 0.0))
