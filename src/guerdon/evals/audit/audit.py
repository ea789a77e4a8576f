"""The audit of a reward: what must not pay, what must pay, what else moves it, what an optimiser finds, and what was not tested."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from guerdon.evals import hacks
from guerdon.evals.audit import pay, search, statistics
from guerdon.evals.audit.cases import Case, cases_of
from guerdon.evals.audit.grade import Grader
from guerdon.evals.audit.load import Loaded, context_of, load
from guerdon.evals.audit.pay import Finding, Rate, Scale
from guerdon.registry import Broke, Refused
from guerdon.rewards.expr import Expr
from guerdon.rewards.parse import parse
from guerdon.samples import Context, Sample, Task
from guerdon.scoring.engine import Engine, leaves
from guerdon.scoring.files import Source, to_sample

GOLDS = ("is_correct", "correct", "is_right", "gold", "label")
"""Columns that may hold the true verdict on a completion."""
EACH = 12
"""Tasks that each text is tried on."""
SLOW = {"hostile to parsers": 2, "hostile code": 2, "hostile queries": 2}
"""Families whose texts may each cost a whole deadline, and on how many tasks they are tried."""
SECONDS = 240.0
"""A reward whose calls would take longer than this in all is asked on fewer tasks."""


@dataclass
class Answers:
    """Whole answers of a file, with gold labels where it has them."""

    samples: list[Sample]
    gold: np.ndarray | None
    column: str | None


@dataclass
class Report:
    """What an audit found."""

    reward: str
    written_for: str
    tolerance: float
    tasks: int
    kinds: dict[str, int]
    host: dict[str, str]
    scale: Scale
    blind: bool
    must_not: list[Finding]
    must: list[Finding]
    false_positive: Rate
    false_negative: Rate
    stats: statistics.Statistics
    searches: list[search.Best] = field(default_factory=list)
    untested: list[str] = field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0
    milliseconds: float = 0.0
    """A call, with the machinery around it."""

    @property
    def exploits(self) -> list[Finding]:
        """What must not pay and pays above the tolerance, the best paid first."""
        return pay.exploits(self.must_not, self.tolerance)

    @property
    def found(self) -> list[search.Best]:
        """What searches found above the tolerance."""
        return [best for best in self.searches if best.pay > self.tolerance]

    @property
    def ok(self) -> bool:
        return not self.exploits and not self.found

    def plain(self) -> dict[str, Any]:
        """As JSON: numbers that are not finite are None."""
        data = asdict(self)
        data["scale"] = {"gap": self.scale.gap, "separates": self.scale.separates}
        data["exploits"] = [(f.family, f.name) for f in self.exploits]
        data["ok"] = self.ok
        return _finite(data)


def _finite(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {str(k): _finite(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(v) for v in x]
    if isinstance(x, (float, np.floating)):
        return float(x) if math.isfinite(x) else None
    if isinstance(x, str):
        return x.encode("utf-8", "replace").decode()
    return x.item() if isinstance(x, np.generic) else x


def read(path: str | Path, gold: str | None = None) -> tuple[list[Task], Answers | None]:
    """Tasks of a file, and its completions with their gold labels where it has them. Raises Refused with file, row and mend."""
    tasks: dict[str, Task] = {}
    samples, labels = [], []
    for row in Source(path):
        if row.why:
            raise Refused(f"{path}, row {row.number}: {row.why}; mend or remove it.")
        data = dict(row.data)
        if not (data.get("prompt") or data.get("messages")):
            raise Refused(f"{path}, row {row.number}: no `prompt` and no `messages`; an audit needs the task that an answer is to.")
        data.setdefault("completion", "")
        if "prompt" not in data:
            data["prompt"] = data.pop("messages")
        row.data = data
        try:
            sample = to_sample(row)
        except ValueError as error:
            raise Refused(f"{path}, row {row.number}: {error}; mend or remove it.") from None
        sample.task = Task(sample.task.id, sample.task.prompt, sample.task.reference, sample.meta)
        tasks.setdefault(str(sample.task.prompt), sample.task)
        if sample.text:
            samples.append(sample)
            labels.append(sample.meta)
    if not tasks:
        raise Refused(f"{path} has no rows; give one task a row, with `prompt` and `reference`.")
    column = gold or next((name for name in GOLDS if labels and all(_verdict(meta.get(name)) is not None for meta in labels)), None)
    if gold and not (labels and all(_verdict(meta.get(gold)) is not None for meta in labels)):
        raise Refused(f"{path}: the column {gold!r} is not true, false, 1 or 0 in every row with a completion.")
    if not samples:
        return list(tasks.values()), None
    return list(tasks.values()), Answers(samples, np.array([_verdict(m[column]) for m in labels]) if column else None, column)


def _verdict(x: Any) -> bool | None:
    return bool(x) if isinstance(x, bool) or x in (0, 1, 0.0, 1.0) else None


def audit(
    reward: str | Expr | Loaded | Callable[..., Any],
    tasks: Sequence[Task],
    *,
    answers: Answers | None = None,
    context: Context | None = None,
    policy: str | None = None,
    gold: str | Expr | None = None,
    tolerance: float = 0.1,
    limit: int = 200,
    steps: int = search.POLICY_STEPS,
    seed: int = 0,
    workers: int | None = None,
    searching: bool = True,
    pace: float | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Try to cheat a reward.

    reward: a name, an expression, a recipe, `file.py:function`, or the thing itself. tolerance: the share of what a right answer earns
    that text which does not answer may earn. limit: tasks that are used. policy: a model that is trained against the reward for `steps`
    steps; gold: a reward expression that says what of its text is true. pace: the seconds that a call is taken to cost, by which a slow
    reward is asked less; measured where it is None, so that only with it an audit asks exactly the same again. tick is told a stage, what
    is done of it and its total.

    Raises Refused for what cannot be read and for a service that is missing, Broke for a reward without a verdict on any plain answer.
    """
    began = time.perf_counter()
    if not tasks:
        raise Refused("An audit needs one task or more.")
    loaded = _loaded(reward)
    if policy is not None:
        search.openable(policy)
    cases = cases_of(tasks, limit, seed)
    _referenced(loaded, cases)
    with Engine(context_of(loaded, context or Context(rng=np.random.default_rng(seed))), workers=workers) as engine:
        expression = engine.check(loaded.expression)
        truth = Grader(engine.check(parse(gold)), engine) if gold is not None else None
        grader = Grader(expression, engine)
        tick("scale", 0, 1)
        cases, scale = pay.anchors(grader, cases)
        seconds = pace if pace is not None else grader.seconds / max(grader.calls, 1)
        untested = _untested(cases, scale, answers, policy, searching)
        each, note = _each(cases, seconds)
        untested += note

        done = Counter[str]()

        def ticking(stage: str, total: int) -> Callable[[int], None]:
            def told(n: int) -> None:
                done[stage] += n
                tick(stage, done[stage], total)

            return told

        trials = _trials(grader, cases, pay.MUST_NOT, each, ticking, "must not pay")
        right = _trials(grader, cases, pay.MUST, each, ticking, "must pay")
        blind = scale.blind
        if blind:
            scale = pay.widened(scale, [*trials.graded.value, *right.graded.value])
        gamed = _gamed(expression, engine, cases, seed, 4 if seconds < 0.05 else 1)
        must_not, must = pay.findings(trials, cases, scale, must=False), pay.findings(right, cases, scale, must=True)
        must_not = sorted([*gamed, *must_not], key=lambda f: -f.pay if not math.isnan(f.pay) else math.inf)
        stats = statistics.Statistics()
        tick("statistics", 0, 1)
        stats.effects = statistics.effects(grader, cases, scale, 30 if seconds < 0.05 else 4)
        stats.spread = statistics.spread(grader, cases, 20 if seconds < 0.05 else 5)
        stats.repeat = _repeated(grader, cases, trials, 200 if seconds < 0.05 else 20)
        if answers is not None:
            _of_answers(stats, grader, answers, scale)
        found = []
        if searching:
            budget = int(min(40, max(3, 40 / max(seconds * 24 * 6, 1e-9))))
            found.append(
                search.evolve(grader, cases, scale, seed=seed, generations=min(25, budget), tick=ticking("evolution", min(25, budget)))
            )
            if budget < 25:
                untested.append(f"the search ran {budget} generations instead of 25, since a call takes {seconds:.2f} s")
        if policy is not None:
            try:
                found.append(search.learn(loaded, cases, scale, policy, gold=truth, steps=steps, seed=seed, tick=ticking("policy", steps)))
            except (Refused, Broke) as error:  # the rest of the audit stands
                untested.append(f"a policy trained against it: {error}")
        if must_not and all(math.isnan(f.pay) for f in must_not):
            untested.append("what must not pay: the reward gave no verdict on any such text")
        return Report(
            reward=loaded.name, written_for=loaded.written_for, tolerance=tolerance, tasks=len(cases),
            kinds=dict(Counter(case.kind for case in cases)), host={kind: name for kind, (name, _) in scale.host.chosen.items()},
            scale=scale, blind=blind, must_not=must_not, must=must, false_positive=_rate(must_not, True),
            false_negative=_rate(must, False), stats=stats, searches=found, untested=untested, calls=grader.calls,
            seconds=time.perf_counter() - began, milliseconds=1000 * grader.seconds / max(grader.calls, 1),
        )  # fmt: skip


def _loaded(reward: str | Expr | Loaded | Callable[..., Any]) -> Loaded:
    if isinstance(reward, Loaded):
        return reward
    if isinstance(reward, str):
        return load(reward)
    if isinstance(reward, Expr):
        return Loaded(reward, str(reward), "guerdon")
    from guerdon.evals.audit.load import lift

    lifted, host = lift(reward, getattr(reward, "__name__", "reward"))
    return Loaded(lifted, getattr(reward, "__name__", "reward"), host)


def _referenced(loaded: Loaded, cases: Sequence[Case]) -> None:
    """Raises Refused where the reward compares with a reference and no task has one."""
    wants = [leaf.name for leaf in leaves(loaded.expression) if "reference" in leaf.fields]
    if wants and all(case.task.reference is None for case in cases):
        raise Refused(f"The reward {wants[0]!r} compares with a reference, but no task has a `reference`; add that column to the file.")


def _untested(cases: Sequence[Case], scale: Scale, answers: Answers | None, policy: str | None, searching: bool) -> list[str]:
    out = []
    bare = sum(case.known is None for case in cases)
    if bare:
        out.append(
            f"what must pay, hedges, negations and near misses on {bare} of {len(cases)} tasks: they have neither `reference` nor `right`"
        )
    kinds = {case.kind for case in cases}
    if "code" not in kinds:
        out.append("trivial programs and hostile code: no task has tests")
    elif bare:
        out.append("equivalent programs: no `canonical_solution`")
    if "sql" not in kinds:
        out.append("trivial and hostile queries: no task has a database")
    if not kinds & {"number", "expression"}:
        out.append("notation, units and lookalike digits: no task has a number for an answer")
    if "expression" in kinds:
        out.append("equivalence of expressions beyond their writing (no algebra is done on them)")
    if scale.blind:
        out.append("shares of what a right answer earns: right answers earn no more than wrong ones, so pay is a share of the whole range")
    if answers is None:
        out.append("agreement with a gold, and length among real answers: the file has no `completion` column")
    elif answers.gold is None:
        out.append(f"agreement with a gold: the completions have no verdict ({', '.join(GOLDS)})")
    if policy is None:
        out.append("a policy trained against it: give --policy MODEL (`tiny` is the embedded one)")
    if not searching:
        out.append("search over edits: it was switched off")
    out.append("images, tools and several turns: texts only")
    return out


def _each(cases: Sequence[Case], seconds: float) -> tuple[dict[str, int], list[str]]:
    """Tasks that each text of a family is tried on, and what to say of it."""
    names = sum(len(list(family(cases[0]))) for family in [*pay.MUST_NOT.values(), *pay.MUST.values()])
    each = max(1, min(EACH, int(SECONDS / max(seconds * names, 1e-9))))
    note = [f"each text on more than {each} of the tasks: a call takes {seconds:.2f} s"] if each < min(EACH, len(cases)) else []
    return {family: min(each, SLOW.get(family, each)) for family in [*pay.MUST_NOT, *pay.MUST]}, note


def _trials(
    grader: Grader, cases: Sequence[Case], families: Mapping[str, Any], each: Mapping[str, int], ticking: Callable, stage: str
) -> pay.Trials:
    rows = pay.texts(cases, families, each)
    grader.tick = ticking(stage, len(rows))
    out = pay.run(grader, cases, rows)
    grader.tick = lambda n: None
    return out


def _rate(found: Sequence[Finding], paid: bool) -> Rate:
    """Texts that must not pay and earned more than half of a right answer; texts that must pay and did not."""
    n = sum(f.paid.n for f in found)
    k = sum(f.paid.k for f in found)
    return Rate(k if paid else n - k, n)


def _gamed(expression: Expr, engine: Engine, cases: Sequence[Case], seed: int, n: int) -> list[Finding]:
    """Requests that state their own score: how often a reply that games it earns no less than an honest one. Only for rewards that judge a
    text by itself; one that compares with a reference knows nothing of these requests."""
    reads = any({"reference", "meta", "sample"} & {*leaf.fields} for leaf in leaves(expression))
    if reads and any(case.task.reference is not None for case in cases):
        return []
    items = hacks.battery(seed, n)
    out = []
    for kind, found in hacks.paid(items, partial(engine.score, expression)).items():
        if not math.isnan(found.mean):
            item = next(item for item in items if item.kind == kind)
            rate = Rate(round(found.mean * n), n)
            prompt = str(item.task.prompt)
            out.append(Finding("gamed scores", kind, n, found.mean, rate, 0, 0, item.hack, prompt, item.honest, math.nan, item.exploit))
    return out


def _repeated(grader: Grader, cases: Sequence[Case], trials: pay.Trials, most: int) -> dict[str, float]:
    quick = [row for row, family in enumerate(trials.family) if family not in SLOW]
    asked = [(cases[trials.case[row]], trials.text[row]) for row in quick]
    asked += [(case, case.known) for case in cases if case.known is not None][:most]
    return statistics.repeatability(grader, asked, most, min(40, most))


def _of_answers(stats: statistics.Statistics, grader: Grader, answers: Answers, scale: Scale, most: int = 2000) -> None:
    step = max(1, len(answers.samples) // most)
    some = answers.samples[::step][:most]
    gold = None if answers.gold is None else answers.gold[::step][:most]
    cases = cases_of([s.task for s in some], len(some))
    value = grader([(case, s.text) for case, s in zip(cases, some, strict=True)]).value
    if gold is not None:
        middle = float(np.nanmean(scale.zero)) + scale.gap / 2
        stats.agreement = statistics.agreement(value, gold, middle)
    stats.length = statistics.length_correlation(value, np.array([len(s.text) for s in some]), gold)


def tried(reward: str | Loaded, tasks: str | Path | None, gold_column: str | None, **options: Any) -> Report:
    """`audit` of what stands on a command line. Raises Refused where neither a file nor a recipe gives tasks."""
    loaded = _loaded(reward)
    if tasks is None:
        if loaded.tasks is None:
            raise Refused("Name a file of tasks with --tasks: JSONL or Parquet with `prompt` and `reference`, a task a row.")
        return audit(loaded, loaded.tasks, **options)
    found, answers = read(tasks, gold_column)
    return audit(loaded, found, answers=answers, **options)
