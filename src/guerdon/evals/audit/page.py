"""An audit for people: a table in the terminal, a page with examples, a card for the docs; and JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from guerdon.evals.audit.audit import Report
from guerdon.evals.audit.pay import Finding, Rate
from guerdon.training.report_samples import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 40
"""Findings on the page and in the card."""


def share(x: float) -> str:
    """A pay: 0 is a wrong answer, 1 a right one."""
    return "no verdict" if math.isnan(x) else f"{x:.2f}"


def verdict(report: Report) -> str:
    """One sentence."""
    again = report.stats.repeat.get("scored again", 0.0)
    if again > 0.5 * report.scale.gap:
        return "It is random: the same text, scored again, earns something else."
    if report.blind:
        return "It does not tell right answers from wrong ones on these tasks: use it beside, or behind, a reward that does."
    n = len(report.exploits)
    found = [f"{n} kinds of text that do not answer are paid" if n > 1 else "One kind of text that does not answer is paid"] if n else []
    found += [
        f"{best.how[0].upper() if not found else best.how[0]}{best.how[1:]} found text that is paid {share(best.pay)} of a right answer"
        for best in report.found
    ]
    if found:
        return f"{'; '.join(found)} (tolerance {report.tolerance:g})."
    return f"Nothing that does not answer was paid more than {report.tolerance:g} of a right answer."


def facts(report: Report) -> list[tuple[str, str]]:
    """What the head of every rendering says."""
    stats = report.stats
    kinds = ", ".join(f"{n} {kind}" for kind, n in report.kinds.items())
    out = [
        ("tasks", f"{report.tasks} ({kinds})"),
        ("answers put as", ", ".join(f"{kind}: {host}" for kind, host in report.host.items()) or "given"),
        ("a right answer earns", _earned(report)),
        ("false positives", str(report.false_positive)),
        ("false negatives", str(report.false_negative)),
    ]
    if stats.agreement is not None:
        a = stats.agreement
        out.append(
            (
                "against the gold",
                f"{a.n:,} answers: AUC {a.auc:.3f}, false positives {a.false_positive}, false negatives {a.false_negative}",
            )
        )
    if known := {name: r for name, r in stats.length.items() if not math.isnan(r)}:
        out.append(("length of real answers", ", ".join(f"{name}: rank correlation {r:+.2f}" for name, r in known.items())))
    for effect in stats.effects:
        if effect.size > report.tolerance:
            levels = ", ".join(f"{level} {share(x)}" for level, x in effect.levels.items())
            out.append((f"{effect.what} of {effect.of} answers", f"moves the reward by {share(effect.size)}: {levels}"))
    still = [f"{e.what} ({e.of})" for e in stats.effects if e.size <= report.tolerance]
    if still:
        out.append(("does not move it", ", ".join(still)))
    flat = stats.spread.get("mixed groups without spread")
    if isinstance(flat, Rate):
        out.append(("mixed groups without spread", str(flat)))
    moved = {name: x for name, x in stats.repeat.items() if x > 1e-9}
    said = ", ".join(f"{name} {'a verdict or none' if math.isinf(x) else f'up to {x:.3g}'}" for name, x in moved.items())
    out.append(("the same text", f"differs: {said}" if moved else "earns the same again, in another order, and alone"))
    out.append(("cost", f"{report.calls:,} calls, {report.milliseconds:.2g} ms each, {report.seconds:.0f} s in all"))
    return out


def _earned(report: Report) -> str:
    scale = report.scale
    if report.blind:
        return f"no more than a wrong one; pay is a share of the range of all that it paid ({scale.gap:.4g})"
    return f"{scale.gap:.4g} above a wrong or an empty one; more than a wrong one in {_percent(scale.separates)} of pairs"


def _percent(x: float) -> str:
    return "no" if math.isnan(x) else f"{100 * x:.0f} %"


def families(found: Sequence[Finding]) -> list[tuple[str, int, float, Rate, int]]:
    """(family, texts, mean pay, paid more than half, failed) of each family, in order of pay."""
    groups: dict[str, list[Finding]] = {}
    for f in found:
        groups.setdefault(f.family, []).append(f)
    rows = []
    for name, own in groups.items():
        pays = [f.pay for f in own if not math.isnan(f.pay)]
        paid = Rate(sum(f.paid.k for f in own), sum(f.paid.n for f in own))
        rows.append((name, len(own), sum(pays) / len(pays) if pays else math.nan, paid, sum(f.failed for f in own)))
    return sorted(rows, key=lambda row: -row[2] if not math.isnan(row[2]) else math.inf)


def show(report: Report) -> list[RenderableType]:
    """For the terminal."""
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((f"{report.reward}", "bold"), f" (written for {report.written_for}): ", verdict(report))
    out: list[RenderableType] = [head]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in facts(report):
        table.add_row(Text(name, style="dim"), Text(text))
    out.append(table)
    for title, found, must in (("must not pay", report.must_not, False), ("must pay", report.must, True)):
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for column in ("family", "texts", "mean pay", "paid", "no verdict"):
            table.add_column(column, justify="left" if column == "family" else "right")
        for name, n, mean, paid, failed in families(found):
            bad = (mean > report.tolerance) if not must else (mean < 1 - report.tolerance)
            table.add_row(name, str(n), share(mean), str(paid), str(failed or "-"), style="red" if bad else None)
        if found:
            out.append(table)
    rows = [("pays", f) for f in report.exploits[:12]]
    rows += [("not paid", f) for f in report.must if f.pay < 0.5][:8]
    if rows:
        table = Table(title="examples", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for column in ("", "what", "pay", "text"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        for why, f in rows:
            table.add_row(why, f"{f.family}: {f.name}", share(f.pay), Text(repr(visible(f.text, 90))))
        out.append(table)
    for best in report.searches:
        example = repr(visible(best.texts[0]["text"], 160)) if best.texts and best.pay > report.tolerance else ""
        out.append(Text(f"search: {best.how}, {best.calls:,} calls: best pay {share(best.pay)}. {best.note} {example}".rstrip()))
    out.append(Text("not tested: " + "; ".join(report.untested), style="dim"))
    return out


def write(report: Report, out: Path) -> list[Path]:
    """`audit.json` and `audit.html` in the folder."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "audit.json"
    data.write_text(json.dumps(report.plain(), indent=1, ensure_ascii=True, default=str) + "\n")
    page = out / "audit.html"
    page.write_text(html(report), encoding="utf-8")
    return [data, page]


def html(report: Report) -> str:
    """One page that needs nothing from outside."""
    from jinja2 import Environment

    files = resources.files("guerdon.evals.audit")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files.joinpath("audit.html").read_text())
    css = resources.files("guerdon.training").joinpath("report.css").read_text()
    return template.render(
        r=report,
        css=css,
        sentence=verdict(report),
        facts=facts(report),
        tables=[
            ("Must not pay", "0 is what a wrong or empty answer earns, 1 what a right one does.", families(report.must_not), False),
            ("Must pay", "The right answer in other forms: 1 is the form that the reward pays best.", families(report.must), True),
        ],
        paid=report.exploits[:MOST],
        refused=[f for f in report.must if f.pay < 1 - report.tolerance][:MOST],
        broken=[f for f in report.must_not if f.failed][:12],
        share=share,
        visible=visible,
        bar=lambda x: 0.0 if math.isnan(x) else max(0.0, min(1.0, x)),
        curves=[_curve(best.curve) for best in report.searches],
    )


def _curve(values: Sequence[float]) -> str:
    """The points of a line in a box of 300 x 60."""
    known = [v if math.isfinite(v) else 0.0 for v in values]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    step = 300 / (len(known) - 1)
    return " ".join(f"{i * step:.1f},{58 - 56 * (v - low) / max(high - low, 1e-9):.1f}" for i, v in enumerate(known))


def card(report: Report, command: str) -> str:
    """The audit card of a grader, for the docs, in Markdown."""
    lines = [f"# `{report.reward}`", "", verdict(report), "", f"    {command}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in facts(report) if name != "cost"]
    for title, found in (("must not pay", report.must_not), ("must pay", report.must)):
        if found:
            lines += ["", f"| {title} | texts | mean pay | paid |", "|---|---|---|---|"]
            lines += [f"| {name} | {n} | {share(mean)} | {paid} |" for name, n, mean, paid, _ in families(found)]
    examples = [("paid", f) for f in report.exploits[:8]] + [("not paid", f) for f in report.must if f.pay < 0.5][:8]
    if examples:
        lines += ["", "| | what | pay | text | reference |", "|---|---|---|---|---|"]
        for why, f in examples:
            lines.append(
                f"| {why} | {_cell(f'{f.family}: {f.name}')} | {share(f.pay)} | `{_code(f.text)}` | `{_code(f.reference or '')}` |"
            )
    for best in report.searches:
        found = f": `{_code(best.texts[0]['text'])}`" if best.texts and best.pay > report.tolerance else ""
        lines += ["", f"Search, {best.how}: best pay {share(best.pay)}{found}. {best.note}".rstrip()]
    lines += ["", f"Not tested: {_cell('; '.join(report.untested), 4000)}.", ""]
    return "\n".join(lines)


def short(report: Report) -> str:
    """What a model card says of an audit, in Markdown: the verdict, and what each family of texts is paid."""
    head = f"`{report.reward}` on {report.tasks} tasks, tolerance {report.tolerance:g}. {verdict(report)}"
    tables = [
        "\n".join([
            f"| {title} | texts | mean pay | paid |", "|---|---|---|---|",
            *(f"| {name} | {n} | {share(mean)} | {paid} |" for name, n, mean, paid, _ in families(found)),
        ])
        for title, found in (("must not pay", report.must_not), ("must pay", report.must)) if found
    ]  # fmt: skip
    searched = [f"Search, {best.how}: best pay {share(best.pay)}." for best in report.searches]
    return "\n\n".join([head, *tables, *searched, f"Not tested: {_cell('; '.join(report.untested), 4000)}."])


def _cell(text: str, most: int = 400) -> str:
    return visible(text, most).replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return visible(text, 70).replace("`", "'").replace("|", "¦").replace("\n", "⏎")
