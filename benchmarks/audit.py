"""What the audit finds, and how far graders of mathematics can be trusted.

    make bench NAME=audit

On the cases of reward-doctor (83 graded, 4 contested) and on 20 seeded variants of each (`audit_variants`): false positives and false
negatives of the `math` reward, with math-verify beside it. Ten graders of others, in the environment of `make test-integrations`, must give
the rates on the graded cases that are known of them; this shows that cases and counting are right. Then `guerdon audit` itself, as a user
runs it: on twelve faulty rewards with an exploit planted in each (`planted/`), on their mended twins, and on `math` with 200 tasks.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE.parent / ".bench" / "audit"
INTEGRATIONS = HERE.parent / ".venv-integrations" / "bin" / "python"
GSM8K = HERE.parent.parent / "shared/data/gsm8k_test.jsonl"
FALSE_NEGATIVES, SECONDS = 0.05, 60.0
KNOWN = {
    "substring": (0.38, 0.52), "last_number": (0.05, 0.50), "exact": (0.0, 0.96), "boxed_exact": (0.0, 0.91), "robust_match": (0.0, 0.02),
    "math_verify": (0.08, 0.41), "verl math_verify": (0.08, 0.43), "trl accuracy_reward": (0.0, 0.91), "verl math_reward": (0.0, 0.91),
    "verl math_dapo": (0.0, 0.89),
}  # fmt: skip
"""False-positive and false-negative rates of graders on the graded cases."""
Case = tuple[str, str, str, bool]
"""Id, reference, text, whether it must pay."""
Graders = Callable[[Sequence[Case]], list[bool]]


def main() -> int:
    from bars import Bars

    bars = Bars("audit", ("math-verify", "sympy", "reward-doctor"))
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    graded, contested = cases()
    of_math(bars, graded, contested)
    of_others(bars)
    with tempfile.TemporaryDirectory() as folder:
        of_planted(bars, Path(folder))
        of_a_plain_grader(bars, Path(folder))
    return bars.close()


# --- the corpus ------------------------------------------------------------------------------------------------------------------


def cases() -> tuple[list[Case], list[Case]]:
    """Those of reward-doctor, the contested ones apart."""
    sys.path.insert(0, str(CORPUS))
    from reward_doctor import corpus  # pyright: ignore[reportMissingImports]

    plain = [[(c.id, c.reference, c.completion, c.expect) for c in some] for some in (corpus.load(), corpus.contested())]
    return plain[0], plain[1]


def rates(told: Sequence[bool], of: Sequence[Case]) -> tuple[float, float]:
    """The share of false positives among what must not pay, of false negatives among what must."""
    paid = {True: [0, 0], False: [0, 0]}
    for ok, case in zip(told, of, strict=True):
        paid[case[3]][ok] += 1
    return paid[False][True] / max(sum(paid[False]), 1), paid[True][False] / max(sum(paid[True]), 1)


def of_math(bars: Any, graded: list[Case], contested: list[Case]) -> None:
    """Bars on the graded cases and their variants; the contested ones, other seeds and math-verify are notes."""
    from audit_variants import variants

    def varied(some: list[Case], seed: int = 0) -> list[Case]:
        found = [(v.case, v.reference, v.completion, v.expect) for case in some for v in variants(case[0], seed=seed)]
        assert {c[0]: c[3] for c in found} == {c[0]: c[3] for c in some}
        return found

    judged = varied(graded)
    for name, some in (("cases", graded), ("variants", judged)):
        told = by_math(some)
        false_positives, false_negatives = rates(told, some)
        bars.bar(f"math-{name}-false-positives", false_positives, 0.0, higher=False)
        bars.bar(f"math-{name}-false-negatives", false_negatives, FALSE_NEGATIVES, higher=False)
        bars.note(f"{name}", dict(Counter("must pay" if c[3] else "must not pay" for c in some)))
        bars.note(f"math-verify on {name}, false positives and negatives", rates(by_math_verify(some), some))
        wrong = [case for case, ok in zip(some, told, strict=True) if ok != case[3]]
        bars.note(f"math wrong on {name}, by case", dict(Counter(case[0] for case in wrong)))
        for case in wrong:
            print(f"      {case[0]}: {case[1]!r} {'refuses' if case[3] else 'pays'} {case[2][-120:]!r}", flush=True)
    for seed in range(1, 4):
        some = varied(graded, seed)
        bars.note(f"math on variants of seed {seed}", rates(by_math(some), some))
    some = contested + varied(contested)
    bars.note("math on contested cases and their variants", rates(by_math(some), some))


def by_math(some: Sequence[Case]) -> list[bool]:
    from guerdon.rewards.math import judge_many

    verdicts = judge_many([(text, reference) for _, reference, text, _ in some])
    if failed := [v.reason for v in verdicts if v.value is None]:
        raise SystemExit(f"math gave no verdict on {len(failed)} cases: {failed[0]}")
    return [bool(v.value) for v in verdicts]


def by_math_verify(some: Sequence[Case]) -> list[bool]:
    return [math_verify(text, reference) > 0 for _, reference, text, _ in some]


def math_verify(completion: str, reference: str) -> float:
    from math_verify import parse, verify

    return float(verify(parse(f"${reference}$"), parse(completion)))


# --- graders of others -----------------------------------------------------------------------------------------------------------


def of_others(bars: Any) -> None:
    """A bar a grader: how far its rates are, in points, from those known of it. Left out, with the reason, where one cannot be run."""
    for python, names in ((sys.executable, HERE_TOO), (str(INTEGRATIONS), [n for n in KNOWN if n not in HERE_TOO])):
        if not Path(python).exists():
            bars.note(", ".join(names), "left out: `make test-integrations` makes the environment that they need")
            continue
        done = subprocess.run([python, __file__, "--graders", *names], capture_output=True, text=True, check=False)
        if done.returncode:
            bars.note(", ".join(names), f"left out: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            continue
        for name, (false_positives, false_negatives) in json.loads(done.stdout.strip().splitlines()[-1]).items():
            known = KNOWN[name]
            off = 100 * max(abs(false_positives - known[0]), abs(false_negatives - known[1]))
            bars.bar(f"{name.replace(' ', '-')}-off-by-points", off, 2.0, higher=False)
            bars.note(f"{name}, false positives and negatives", (round(false_positives, 3), round(false_negatives, 3)))


HERE_TOO = ["substring", "last_number", "exact", "boxed_exact", "robust_match", "math_verify"]
"""Graders that this environment has."""


def graders(names: Sequence[str]) -> int:
    """Prints the rates of these graders on the graded cases."""
    logging.disable(logging.CRITICAL)
    graded, _ = cases()
    found = {}
    for name in names:
        pays = grader(name)
        found[name] = rates([pays(text, reference) > 0 for _, reference, text, _ in graded], graded)
    print(json.dumps(found))
    return 0


def grader(name: str) -> Callable[[str, str], float]:
    """Text and reference -> the score. What accuracy_reward leaves out, since it cannot parse the reference, earns nothing."""
    if name == "math_verify":
        return math_verify
    if name == "trl accuracy_reward":
        from trl.rewards import accuracy_reward  # pyright: ignore[reportMissingImports]

        return lambda text, reference: accuracy_reward([[{"role": "assistant", "content": text}]], [reference])[0] or 0.0
    if name.startswith("verl "):
        from importlib import import_module

        module = import_module(f"verl.utils.reward_score.{name.removeprefix('verl ')}")
        return lambda text, reference: score_of(module.compute_score(text, reference))
    from reward_doctor import reference  # pyright: ignore[reportMissingImports]

    names = {"substring": "substring_match", "exact": "exact_match"}
    return reference.REFERENCE_VERIFIERS[names.get(name, name)]


def score_of(out: Any) -> float:
    return out["score"] if isinstance(out, dict) else out


# --- the audit -------------------------------------------------------------------------------------------------------------------


def of_planted(bars: Any, folder: Path) -> None:
    """How many of the planted exploits are found, and in how many mended twins something is."""
    files = sorted((HERE / "planted").glob("*.py"))
    found = dirty = 0
    for path in files:
        tasks = write(folder / f"{path.stem}.jsonl", planted_tasks(path))
        for which in ("faulty", "mended"):
            report, seconds = audited(f"{path}:{which}", tasks, folder / f"{path.stem}-{which}")
            names = [f"{family}: {name}" for family, name in report["exploits"]]
            names += [f"search by {best['how']}" for best in report["searches"] if best["pay"] > report["tolerance"]]
            found += which == "faulty" and bool(names)
            dirty += which == "mended" and bool(names)
            told = f"{len(names)} ways, such as {names[0]}" if names else "nothing found"
            bars.note(f"{path.stem}, {which}", f"{told} ({seconds:.1f} s)")
    bars.bar("planted-exploits-found", found, len(files))
    bars.bar("mended-twins-with-a-finding", dirty, 0, higher=False)


def planted_tasks(path: Path) -> list[dict[str, Any]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TASKS


def of_a_plain_grader(bars: Any, folder: Path) -> None:
    """Seconds of the audit of `math`, the start of the program included."""
    if not GSM8K.exists():
        bars.note("audit of math", f"left out: {GSM8K.name} is not in ../shared/data")
        return
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()[:200]]
    tasks = write(folder / "gsm8k.jsonl", [{"prompt": row["prompt"], "reference": row["reference"]} for row in rows])
    report, seconds = audited("math", tasks, folder / "math")
    bars.bar("audit-of-math-seconds", seconds, SECONDS, higher=False)
    bars.note("audit of math, texts scored", report["calls"])
    bars.note("audit of math, ways to be paid without an answer", [name for _, name in report["exploits"]])


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(reward: str, tasks: Path, out: Path) -> tuple[dict[str, Any], float]:
    """The report of `guerdon audit` and its seconds. Raises RuntimeError where it did not come to a verdict."""
    command = [sys.executable, "-m", "guerdon", "audit", reward, "--tasks", str(tasks), "--out", str(out)]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 1) or not (out / "audit.json").exists():
        raise RuntimeError(f"the audit of {reward} ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads((out / "audit.json").read_text()), seconds


if __name__ == "__main__":
    raise SystemExit(graders(sys.argv[2:]) if sys.argv[1:2] == ["--graders"] else main())
