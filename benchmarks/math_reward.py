"""The `math` reward beside math-verify: agreement on real completions, formulas and rewritten formulas, and inputs made to hang a grader.

    python benchmarks/math_reward.py

Completions of GSM8K are read from ../shared/data; without them their bars are left out. Both graders see the same texts; the golds of
math-verify are parsed before the clock starts. Ours runs with one worker process, and its time includes the way there and back.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from bars import Bars

from guerdon.rewards.math import judge_many
from guerdon.workers import Pool

ROOT = Path(__file__).parent.parent
GSM8K = ROOT.parent / "shared/data/gsm8k_model_solutions.jsonl"
CASES = ROOT / "tests/rewards/math_cases.jsonl"
SEED = 7
Pair = tuple[str, str, bool]
"""answer, reference, equal"""


def main() -> int:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    bars = Bars("math_reward", ("math-verify", "sympy", "pebble", "reasoning-gym"))
    with Pool(1) as pool:
        judge_many([("\\boxed{x+1}", "1+2x-x")], pool=pool)  # imports and the first worker
        if GSM8K.exists():
            completions(bars, pool)
        else:
            print(f"skip gsm8k: {GSM8K} is not there", flush=True)
        formulas(bars, pool, "forms", known_pairs())
        formulas(bars, pool, "rewritten", rewritten_pairs(500))
        pathological(bars)
    return bars.close()


# --- completions of GSM8K --------------------------------------------------------------------------------------------------------

REWRITES: dict[str, Callable[[str], str]] = {
    "boxed": lambda x: f"\\boxed{{{x}}}",
    "prose": lambda x: f"So the final answer is {x}.",
    "currency": lambda x: f"A: ${x}",
    "latex": lambda x: f"The answer is \\({x}\\).",
    "thousands": lambda x: f"A: {with_thousands(x)}",
    "bold": lambda x: f"**Answer:** **{x}**",
    "tag": lambda x: f"<answer>{x}</answer>",
    "unit": lambda x: f"A: {x} units",
}


def with_thousands(x: str) -> str:
    whole, point, rest = x.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-").isdigit() and not whole.startswith("-0") else x


def completions(bars: Bars, pool: Pool) -> None:
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    pairs = [(row["completion"], row["reference"]) for row in rows]
    seconds, verdicts = timed(lambda: judge_many(pairs, pool=pool))
    agreed = sum(bool(v.value) == row["is_correct"] for v, row in zip(verdicts, rows, strict=True))
    bars.bar("gsm8k_agree", agreed, len(rows))
    bars.note("gsm8k rows per second", len(rows) / seconds)
    bars.note("gsm8k reasons", dict(Counter(v.reason for v in verdicts).most_common()))

    golds = [math_verify_parse(f"${row['reference']}$") for row in rows]
    begun = time.perf_counter()
    peer = [math_verify_equal(gold, row["completion"]) for gold, row in zip(golds, rows, strict=True)]
    bars.note("gsm8k math-verify rows per second", len(rows) / (time.perf_counter() - begun))
    bars.note("gsm8k math-verify agree", sum(p == row["is_correct"] for p, row in zip(peer, rows, strict=True)))

    changed = 0
    for rewrite in REWRITES.values():
        told, before = [], []
        for row, verdict in zip(rows, verdicts, strict=True):
            head, found, answer = row["completion"].rpartition("\nA: ")
            if found:
                told.append((f"{head}\n{rewrite(answer)}", row["reference"]))
                before.append(verdict.value)
        changed += sum(v.value != b for v, b in zip(judge_many(told, pool=pool), before, strict=True))
    bars.note("gsm8k rows with a final line", len(before))
    bars.bar("gsm8k_rewritten_changed", changed, 0, higher=False)

    swapped = []
    for row in rows:
        for step in (4, 400, 2000):
            other = rows[(rows.index(row) + step) % len(rows)]["reference"] if row["is_correct"] else row["reference"]
            if other.replace(",", "") != row["reference"].replace(",", ""):
                swapped.append((row["completion"], other))
    bars.note("gsm8k rows with another reference", len(swapped))
    bars.bar("gsm8k_other_reference_accepted", sum(bool(v.value) for v in judge_many(swapped, pool=pool)), 0, higher=False)


# --- formulas --------------------------------------------------------------------------------------------------------------------


def formulas(bars: Bars, pool: Pool, name: str, pairs: list[Pair]) -> None:
    texts = [(f"\\boxed{{{answer}}}", gold) for answer, gold, _ in pairs]
    begun = time.perf_counter()
    verdicts = judge_many(texts, pool=pool)
    ours = time.perf_counter() - begun
    golds = [math_verify_parse(f"${gold}$") for _, gold, _ in pairs]
    begun = time.perf_counter()
    peer = [math_verify_equal(gold, text) for gold, (text, _) in zip(golds, texts, strict=True)]
    theirs = time.perf_counter() - begun
    equal = [pair[2] for pair in pairs]
    mine = [bool(v.value) for v in verdicts]
    bars.note(f"{name} pairs", {"equal": sum(equal), "different": len(equal) - sum(equal)})
    bars.note(f"{name} reasons", dict(Counter(v.reason for v in verdicts).most_common()))
    bars.note(f"{name} math-verify wrong accepts", sum(p and not e for p, e in zip(peer, equal, strict=True)))
    for pair, told, verdict in zip(pairs, mine, verdicts, strict=True):
        if told != pair[2]:
            print(f"    wrong: {pair} {verdict.reason}", flush=True)
    bars.bar(f"{name}_wrong_accepts", sum(m and not e for m, e in zip(mine, equal, strict=True)), 0, higher=False)
    rejects = sum(e and not p for p, e in zip(peer, equal, strict=True))
    bars.bar(f"{name}_wrong_rejects", sum(e and not m for m, e in zip(mine, equal, strict=True)), rejects, higher=False)
    bars.bar(f"{name}_pairs_per_second", len(pairs) / ours, len(pairs) / theirs)


def known_pairs() -> list[Pair]:
    """500: the textbook forms of the tests' table, and answers of reasoning-gym in the forms that a model may write."""
    pairs: list[Pair] = []
    for line in CASES.read_text().splitlines():
        case = json.loads(line)
        if case["kind"] != "cheating" and case["group"] not in ("prose", "references", "completions"):
            pairs.append((case["answer"], case["reference"], case["kind"] == "equal"))
    return (pairs + gym_pairs())[:500]


def gym_pairs() -> list[Pair]:
    import reasoning_gym
    import sympy

    def numeric(x: str) -> str:
        return f"{int(x):,}" if x.lstrip("-").isdigit() else f"\\({x}\\)"

    def fraction(x: str) -> str:
        over, _, under = x.strip("$").partition("/")
        return f"\\frac{{{3 * int(over)}}}{{{3 * int(under)}}}" if under else x

    def formula(x: str) -> str:
        return sympy.latex(sympy.expand(sympy.sympify(x)))

    def point(x: str) -> str:
        return f"\\left{x.removesuffix(')')}\\right)" if x.startswith("(") else x

    def imaginary(x: str) -> str:
        real, sign, rest = x.split(" ")
        return f"{'' if sign == '+' else '-'}{rest} + {real}".replace(".0", "").replace("+ -", "- ")

    forms: dict[str, Callable[[str], str]] = {
        "fraction_simplification": fraction, "dice": fraction, "chain_sum": numeric, "products": numeric, "lcm": numeric,
        "gsm_symbolic": numeric, "decimal_chain_sum": numeric, "coin_flip": lambda x: str(Fraction(x)), "advanced_geometry": point,
        "complex_arithmetic": imaginary, "polynomial_multiplication": formula, "simple_integration": formula,
        "intermediate_integration": formula, "simple_equations": lambda x: f"x = {x}", "calendar_arithmetic": str.lower,
    }  # fmt: skip
    pairs: list[Pair] = []
    for name, form in forms.items():
        data = reasoning_gym.create_dataset(name, size=14, seed=SEED)
        answers = [data[i]["answer"] for i in range(14)]
        for answer, other in zip(answers, answers[1:] + answers[:1], strict=True):
            try:
                written = form(answer)
            except ValueError:  # a "point" that is a number
                written = answer
            pairs.append((written, answer, True))
            if other.strip("$").lower() != answer.strip("$").lower() and len(pairs) % 2:
                pairs.append((written, other, False))
    random.Random(SEED).shuffle(pairs)
    return pairs


def rewritten_pairs(n: int) -> list[Pair]:
    """Random values of twelve kinds, each written in two ways; in half of the pairs one of the numbers in the value was changed."""
    rng = random.Random(SEED)
    pairs: list[Pair] = []
    while len(pairs) < n:
        kind = KINDS[len(pairs) // 2 % len(KINDS)]
        value = tuple(rng.choice([-1, 1]) * rng.randint(2, 12) for _ in range(4))
        equal = len(pairs) % 2 == 0
        other = value
        while not equal and kind(other, rng)[0] == kind(value, rng)[0]:
            at = rng.randrange(4)
            other = (*value[:at], value[at] + rng.choice([-2, -1, 1, 2]) or 3, *value[at + 1 :])
        pairs.append((rng.choice(kind(other, rng)[1]), rng.choice(kind(value, rng)[1]), equal))
    return pairs


Written = tuple[Any, list[str]]
"""What identifies the value, and some ways to write it."""
Four = tuple[int, int, int, int]


def signed(x: int) -> str:
    return f"+ {x}" if x >= 0 else f"- {-x}"


def a_fraction(v: Four, rng: random.Random) -> Written:
    q = Fraction(v[0], abs(v[1]))
    k = rng.randint(2, 9)
    ways = [f"{v[0]}/{abs(v[1])}", f"\\frac{{{v[0]}}}{{{abs(v[1])}}}", f"\\dfrac{{{k * v[0]}}}{{{k * abs(v[1])}}}", f"${q}$"]
    whole, rest = divmod(abs(q), 1)
    if whole and rest:
        ways.append(f"{'-' if q < 0 else ''}{whole}\\frac{{{rest.numerator}}}{{{rest.denominator}}}")
    return q, ways


def a_decimal(v: Four, rng: random.Random) -> Written:
    x = Fraction(v[0] * 1000 + v[1] * 10 + v[2], 100)
    text = f"{float(x):.2f}"
    return x, [text, text + "0", f"\\text{{{text}}}", f"{x.numerator}/{x.denominator}", f"{float(x * 100):.0f} \\times 10^{{-2}}"]


def a_surd(v: Four, rng: random.Random) -> Written:
    a, b = v[0], (2, 3, 5, 7, 11)[v[1] % 5]
    sign = "-" if a < 0 else ""
    return (a, b), [f"{a}\\sqrt{{{b}}}", f"{sign}\\sqrt{{{a * a * b}}}", f"{a}*sqrt({b})", f"\\frac{{{a * b}}}{{\\sqrt{{{b}}}}}"]


def a_pi(v: Four, rng: random.Random) -> Written:
    p, q = v[0], abs(v[1])
    return Fraction(p, q), [f"\\frac{{{p}\\pi}}{{{q}}}", f"\\frac{{{p}}}{{{q}}}\\pi", f"{p}*pi/{q}", f"{p}π/{q}"]


def a_quadratic(v: Four, rng: random.Random) -> Written:
    a, b = v[0], v[1]
    ways = [f"(x {signed(a)})(x {signed(b)})", f"x^2 {signed(a + b)}x {signed(a * b)}", f"{a * b} {signed(a + b)}*x + x**2"]
    return tuple(sorted((a, b))), [*ways, f"(x {signed(b)})(x {signed(a)})"]


def a_point(v: Four, rng: random.Random) -> Written:
    a, b, c = v[0], abs(v[1]), v[2]
    return (Fraction(a, b), c), [f"({a}/{b}, {c})", f"\\left(\\frac{{{a}}}{{{b}}}, {c}\\right)", f"(\\dfrac{{{2 * a}}}{{{2 * b}}},{c}.0)"]


def a_set(v: Four, rng: random.Random) -> Written:
    items = sorted(set(v[:3]))
    mixed = rng.sample(items, len(items))
    listed, shuffled = ", ".join(map(str, items)), ", ".join(map(str, mixed))
    return tuple(items), [f"\\{{{listed}\\}}", f"\\{{{shuffled}\\}}", shuffled, " or ".join(f"x = {x}" for x in mixed)]


def an_interval(v: Four, rng: random.Random) -> Written:
    low, high = v[0], v[0] + abs(v[1])
    left, right = "[" if v[2] > 0 else "(", "]" if v[3] > 0 else ")"
    below, above = "\\le" if v[2] > 0 else "<", "\\le" if v[3] > 0 else "<"
    inside = f"{left}{low}, {high}{right}"
    return inside, [inside, f"\\left{left}{low},{high}\\right{right}", f"x \\in {inside}", f"{low} {below} x {above} {high}"]


def a_line(v: Four, rng: random.Random) -> Written:
    a, b, c = v[:3]
    k = rng.choice([-3, 2, 5])
    ways = [f"{a}x {signed(b)}y = {c}", f"{a}x {signed(b)}y {signed(-c)} = 0", f"{k * a}x {signed(k * b)}y = {k * c}"]
    return (Fraction(a, c), Fraction(b, c)), [*ways, f"{c} = {b}y {signed(a)}x"]


def a_matrix(v: Four, rng: random.Random) -> Written:
    a, b, c, d = v
    ways = [f"\\begin{{{m}}} {a} & {b} \\\\ {c} & {d} \\end{{{m}}}" for m in ("pmatrix", "bmatrix")]
    return v, [*ways, f"\\begin{{pmatrix}} {2 * a}/2 & {b} \\\\ {c} & {d}.0 \\end{{pmatrix}}", f"[[{a}, {b}], [{c}, {d}]]"]


def a_complex(v: Four, rng: random.Random) -> Written:
    a, b = v[:2]
    return (a, b), [f"{a} {signed(b)}i", f"{b}i {signed(a)}", f"{a}.0 {signed(b)}.0i", f"\\frac{{{2 * a} {signed(2 * b)}i}}{{2}}"]


def a_power(v: Four, rng: random.Random) -> Written:
    base, n = abs(v[0]), abs(v[1]) * 5
    return base**n, [f"{base}^{{-{n}}}", f"\\frac{{1}}{{{base}^{{{n}}}}}", f"1/{base}^{n}", f"{base}^{{-{n - 1}}} \\cdot {base}^{{-1}}"]


KINDS: tuple[Callable[[Any, random.Random], Written], ...] = (
    a_fraction, a_decimal, a_surd, a_pi, a_quadratic, a_point, a_set, an_interval, a_line, a_matrix, a_complex, a_power,
)  # fmt: skip

# --- inputs made to hang ---------------------------------------------------------------------------------------------------------

PATHOLOGICAL: dict[str, Callable[[], str]] = {
    "tower": lambda: "\\boxed{9^{9^{9^9}}}",
    "plain tower": lambda: "The answer is 9^9^9^9",
    "sum": lambda: "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}",
    "braces": lambda: "\\boxed{" + "{" * 10_000 + "42" + "}" * 10_000 + "}",
    "factorial": lambda: "\\boxed{(10^{10})! + x}",
    "exponent": lambda: "\\boxed{x^{10^{10^{10}}} \\cdot 2^{10^{12}}}",
    "digits": lambda: "A: " + "7" * 10_000_000,
    "parentheses": lambda: "\\boxed{" + "(" * 300 + "x" + ")" * 300 + "}",
    "fractions": lambda: "\\boxed{" + "\\frac{1}{" * 200 + "x" + "}" * 200 + "}",
    "regex bait": lambda: "answer is " * 400_000 + "$" * 400_000 + "\\(" * 300_000 + "A:" * 400_000 + " " * 1_000_000 + "\\boxed{ {",
    "NULs and surrogates": lambda: "\\boxed{" + "\0\ud800" * 500 + "^{42}" + "\0" * 500_000 + "}",
    "product": lambda: "\\boxed{(x+1)^{100000}(x-1)^{100000}}",
}


def pathological(bars: Bars) -> None:
    """Each with twenty plain and two slow rows beside it: wrong by its deadline plus 0.5 s, the others right."""
    plain = [(f"\\boxed{{{k}}}", str(k)) for k in range(20)] + [("\\boxed{(x+1)^2}", "x^2+2x+1"), ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}")]
    deadline, slowest, wrong, others = 2.0, 0.0, 0, 0
    with Pool(2) as pool:
        judge_many(plain[-2:], pool=pool)
        for name, make in PATHOLOGICAL.items():
            text = make()
            begun = time.perf_counter()
            verdict, *rest = judge_many([(text, "42"), *plain], deadline, pool)
            seconds = time.perf_counter() - begun
            slowest = max(slowest, seconds)
            wrong += verdict.value == 0.0
            others += all(v.value == 1.0 for v in rest)
            bars.note(f"pathological {name}", f"{seconds:.2f} s {verdict.reason}")
    bars.bar("pathological_settled_wrong", wrong, len(PATHOLOGICAL))
    bars.bar("pathological_others_right", others, len(PATHOLOGICAL))
    bars.bar("pathological_seconds", slowest, deadline + 0.5, higher=False)


# --- the peer --------------------------------------------------------------------------------------------------------------------


def math_verify_parse(text: str) -> Any:
    from math_verify import parse

    return parse(text, parsing_timeout=5)


def math_verify_equal(gold: Any, text: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(gold, parse(text, parsing_timeout=5), timeout_seconds=5))


def timed(run: Callable[[], Any], repeats: int = 5) -> tuple[float, Any]:
    """Median seconds, and what the last run returned."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        out = run()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), out


if __name__ == "__main__":
    sys.exit(main())
