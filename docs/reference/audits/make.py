"""Makes the audit cards of the rewards that guerdon ships, and the table of them: `python docs/reference/audits/make.py [CARD ...]`.

Each card is what its command, which stands in it, writes; the same command writes the same card.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TASKS = "docs/reference/audits/tasks"

CARDS: dict[str, tuple[str, str, str]] = {
    # card: (reward, tasks, options); a pace is named, or what is asked would depend on how fast this machine is
    "math": ("math", "numbers", ""),
    "math-expressions": ("math", "expressions", ""),
    "exact": ("exact", "words", ""),
    "choice": ("choice", "choices", ""),
    "choices": ("choices", "several-choices", ""),
    "qa_exact": ("qa_exact", "short-answers", ""),
    "qa_f1": ("qa_f1", "short-answers", ""),
    "chart": ("chart", "charts", ""),
    "class_name": ("class_name", "classes", ""),
    "arithmetic": ("arithmetic", "arithmetic", ""),
    "closeness": ("closeness", "arithmetic", ""),
    "arithmetic_steps": ("arithmetic_steps", "arithmetic-steps", ""),
    "satquest": ("satquest", "sat", ""),
    "lookup": ("lookup", "lookup", ""),
    "guess": ("guess", "guess", ""),
    "guess_bits": ("guess_bits", "guess", ""),
    "rouge": ("rouge", "translations", ""),
    "bleu": ("bleu", "translations", ""),
    "chrf": ("chrf", "translations", ""),
    "edit_similarity": ("edit_similarity", "translations", ""),
    "length_match": ("length_match", "words", ""),
    "json_schema": ("json_schema", "schemas", ""),
    "regex": ("regex(where='full')", "patterns", ""),
    "toolrl": ("toolrl", "tool-calls", ""),
    "tool_format": ("tool_format", "tool-calls", ""),
    "tool_correct": ("tool_correct", "tool-calls", ""),
    "iou": ("iou", "boxes", ""),
    "point_in_box": ("point_in_box", "points", ""),
    "ndcg": ("ndcg", "rankings", ""),
    "recall": ("recall", "rankings", ""),
    "code": ("code", "programs", "--limit 12 --pace 0.06 --no-search"),
    "sql": ("sql", "queries", ""),
    "sql_valid": ("sql_valid", "queries", ""),
    "sql_schema": ("sql_schema", "queries", ""),
    "sql_ngram": ("sql_ngram", "queries", ""),
    "sql_format": ("sql_format", "queries", ""),
    "format": ("format", "short-answers", ""),
    "format_only": ("format_only", "numbers", ""),
    "tag_count": ("tag_count", "short-answers", ""),
    "tag_share": ("tag_share", "short-answers", ""),
    "repetition": ("repetition", "short-answers", ""),
    "language": ("language", "short-answers", ""),
    "length": ("length(target=200, unit='characters')", "short-answers", ""),
    "reasoning_patterns": ("reasoning_patterns", "short-answers", ""),
    "surrogate": ("surrogate(l_max=2000, unit='characters')", "numbers", ""),
    "nugget_labels": ("nugget_labels", "labels", ""),
    "listwise_accuracy": ("listwise_accuracy", "verdicts", ""),
    "listwise_format": ("listwise_format", "verdicts", ""),
    "rm_r1_verdict": ("rm_r1_verdict", "verdict-tags", ""),
    "think_rm_accuracy": ("think_rm_accuracy", "judgements", ""),
    "think_rm_format": ("think_rm_format", "judgements", ""),
    "bmas": ("bmas(model='embedder')", "translations", "--limit 6 --pace 0.1 --no-search --model embedder=smollm2"),
}

WITHOUT: dict[str, tuple[str, ...]] = {
    # why there is no card: rewards
    "the probability of the reference, or of its own words, under a policy: no answer is read that would be right or wrong": (
        "answer_likelihood", "belief", "follow_up", "jepo", "log_prob", "prob", "r3", "rlbff_genrm", "rlpr", "self_aligned",
    ),
    "the votes of the samples of a group, or of the phrasings of a question, are its truth: an audit has none": ("co_reward", "majority"),
    "the number of the policy's tokens, which texts of an audit do not have": ("overlong",),
    "a judge: a card would speak of the model behind it; audit it with yours, `guerdon audit judge --tasks FILE --model judge=URL#MODEL`": (
        "carr", "fact_share", "genprm", "graded", "judge", "judge_correct", "nuggets", "preferred", "rewardanything", "rlbff", "rm_r1",
        "rubric", "soft_verifier", "sql_judge", "think_rm",
    ),
}  # fmt: skip


def command(name: str) -> list[str]:
    reward, tasks, options = CARDS[name]
    paced = options if "--pace" in options else f"{options} --pace 0.01"
    return ["audit", reward, "--tasks", f"{TASKS}/{tasks}.jsonl", *shlex.split(paced)]


def make(name: str) -> int:
    """Writes the card; 2 where the audit could not begin."""
    run = [
        sys.executable,
        "-c",
        "from guerdon.cli import main; main()",
        *command(name),
        "--card",
        str(HERE / f"{name}.md"),
        "--workers",
        "1",
    ]
    found = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{name}: {'made' if found.returncode in (0, 1) else found.stderr.strip()}", flush=True)
    return 0 if found.returncode in (0, 1) else 2


def line(name: str) -> str:
    """A card's line in the table, read from the card."""
    text = (HERE / f"{name}.md").read_text(encoding="utf-8")
    title, verdict = text.split("\n")[:3:2]
    rate = {key: re.search(rf"^\| {key} \| (.*?)(?: of|\s*\|)", text, re.M) for key in ("false positives", "false negatives")}
    worst = re.search(r"^\| paid \| (.*?) \| (.*?) \|", text, re.M)
    rates = [found[1] if found else "" for found in rate.values()]
    cells = (f"[{title[2:]}]({name}.md)", verdict, *rates, f"{worst[1]} ({worst[2]})" if worst else "")
    return f"| {' | '.join(cells)} |"


def table() -> str:
    about = (HERE / "about.md").read_text(encoding="utf-8").rstrip()
    rows = [line(name) for name in CARDS if (HERE / f"{name}.md").exists()]
    columns = "| reward | verdict | false positives | false negatives | worst exploit (its pay) |"
    without = [f"- {', '.join(f'`{name}`' for name in names)}: {why}." for why, names in WITHOUT.items()]
    return "\n".join([about, "", columns, "|---|---|---|---|---|", *rows, "", "Rewards without a card:", "", *without, ""])


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in CARDS]:
        print(f"There is no card {unknown[0]!r}; there are: {', '.join(CARDS)}.", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(make, names or CARDS))
    (HERE / "README.md").write_text(table(), encoding="utf-8")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
