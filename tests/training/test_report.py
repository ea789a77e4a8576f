"""The report of a run: on whole, empty and broken-off runs, and against what models write to break a page."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from guerdon.registry import Refused
from guerdon.training import metrics as m
from guerdon.training.record import read_metrics
from guerdon.training.report import clock, reasons, said, write_report
from guerdon.training.report_charts import draw, running_mean, short
from guerdon.training.report_samples import choose, tokens, visible

RECIPE = {
    "name": "arithmetic",
    "seed": 0,
    "models": {"policy": {"path": "tiny", "backend": "local", "of": None}, "reference": {"of": "policy", "every": None}},
    "tasks": {"use": "arithmetic", "n": 2000, "steps": [3, 4]},
    "reward": "gate(format, math) + 0.2 * length(target=40).when(math > 0) | clip(0, 1)",
    "keep": [{"use": "dynamic_sampling"}],
    "credit": {"use": "grpo"},
    "aggregate": {"use": "token_mean"},
    "loss": [{"use": "ppo_clip", "clip": 0.2, "clip_high": 0.28}],
    "train": {"steps": 120, "prompts": 16, "samples": 8, "lr": 3e-4, "schedule": "constant"},
    "eval": {"every": 10, "gold": "exact"},
}
REASONS = ("failed: judge: HTTP 503 after 3 tries", "hostile: math: over the deadline of 2 s", "abstained: length: no thinking found")


def fake_run(run: Path, steps: int = 120, parts: int = 3, evals: bool = True, samples: int = 64, texts: list[str] | None = None) -> Path:
    """A run folder as the loop writes it, with made-up but likely numbers."""
    rng = np.random.default_rng(0)
    (run / "samples").mkdir(parents=True)
    (run / "evals").mkdir()
    (run / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"name": run.name}, sort_keys=False))
    difficulty = rng.normal(size=200)
    with (run / "metrics.jsonl").open("w") as out:
        for step in range(0 if evals else 1, steps + 1):
            skill = 0.3 + 0.65 / (1 + np.exp(-(step / max(steps, 1) - 0.4) * 9))
            entry = {m.STEP: step}
            if step:
                why = {r: int(rng.poisson(rate)) for r, rate in zip(REASONS, (0.3, 3 * (1 - skill), 1.0), strict=True)}
                entry |= {
                    m.SAMPLES: 128, m.REWARD: skill + rng.normal() * 0.05, m.REWARD_STD: 0.45 * (1 - skill) + 0.1, m.PASS_1: skill * 0.97,
                    m.PASS_K: min(1.0, skill + 0.2), m.LENGTH: 38 + 10 * skill + rng.normal(), m.TRUNCATED: 0.1 * (1 - skill),
                    m.HOSTILE: why[REASONS[1]] / 128, m.ABSTAINED: why[REASONS[2]] / 128, m.FAILED: why[REASONS[0]] / 128,
                    m.REASONS: {r: n for r, n in why.items() if n}, m.ZERO_SPREAD: skill**3, m.REFILLS: int(rng.poisson(skill)),
                    m.DROPPED: int(128 * skill**3), m.SHORT: 0, m.SAMPLE_AGE: 0.5, m.LOSS: rng.normal() / 100, m.ENTROPY: 0.9 - 0.7 * skill,
                    m.KL: 0.02 * step / steps + abs(rng.normal()) * 0.003, m.CLIP_FRACTION: abs(rng.normal()) * 0.02,
                    m.GRAD_NORM: abs(rng.normal()) + 0.4, m.LR: 3e-4, m.LOGPROB_GAP: 0.002 + abs(rng.normal()) * 0.001,
                    m.TOKENS_PER_SECOND: 9000 + rng.normal() * 400, m.SECONDS: 1.3,
                }  # fmt: skip
                entry |= {f"{m.REWARD}/part{i}": skill * (i + 1) + rng.normal() * 0.05 for i in range(parts)}
                seconds = {"rollouts": 0.6, "rewards": 0.05, "curation": 0.01, "credit": 0.01, "update": 0.5, "io": 0.02}
                entry |= {f"{m.SECONDS_BY_ROOM}{room}": s * (1 + 0.1 * rng.random()) for room, s in seconds.items()}
            if evals and step % 10 == 0:
                passed = difficulty < 4 * (skill - 0.5) + rng.normal(size=200) * 0.3
                entry |= {m.EVAL_ACCURACY: float(passed.mean()), m.EVAL_REWARD: skill + 0.02, m.EVAL_LENGTH: 45.0}
                entry |= {m.EVAL_GOLD: skill - (0.25 * (step / steps - 0.7) if step > 0.7 * steps else 0), m.HACK: int(step > 0.8 * steps)}
                rows = [
                    {"task_id": f"t{i}", "passed": bool(p), "reward": float(p), "gold": None, "text": "x"} for i, p in enumerate(passed)
                ]
                pq.write_table(pa.Table.from_pylist(rows), run / "evals" / f"step-{step:06d}.parquet")
            out.write(json.dumps(entry) + "\n")
    with (run / "events.jsonl").open("w") as out:
        for step in range(100, steps + 1, 10):
            out.write(
                json.dumps({"step": step, "kind": "hack", "text": "reward rose by 0.04 since step 80 while gold fell by 0.06."}) + "\n"
            )
    for step in sorted({1, steps} if steps else ()):
        write_samples(run / "samples" / f"step-{step:06d}.parquet", step, samples, rng, texts)
    return run


def write_samples(path: Path, step: int, count: int, rng: np.random.Generator, texts: list[str] | None) -> None:
    rows = []
    for i in range(count):
        a, b, c = rng.integers(2, 90, 3)
        right = rng.random() < 0.5
        answer = a * b + c + (0 if right else int(rng.integers(1, 9)))
        text = f"<think>\n{a} * {b} = {a * b}\n{a * b} + {c} = {answer}\n</think>\nThe answer is {answer}."
        text = texts[i % len(texts)] if texts else text
        pieces = re.findall(r"\d|\w+| \w+|\s|[^\w\s]", text)[:5000] if len(text) < 100_000 else [text]
        state, why = "scored", ""
        if i % 16 == 5:
            state, why = ("failed", REASONS[0]) if i % 32 == 5 else ("abstained", REASONS[2])
        hostile = i % 16 == 9
        reward = None if state != "scored" else 0.0 if hostile else float(right) + 0.1 * (i % 3)
        wave = np.sin(np.arange(len(pieces)) / 6) * 0.5
        rows.append(
            {
                "step": step,
                "task_id": f"arithmetic-{i // 8}",
                "group": i // 8,
                "prompt": f"What is {a} * {b} + {c}?",
                "text": text,
                "reference": str(a * b + c),
                "reward": reward,
                "state": state,
                "reason": REASONS[1] if hostile else why,
                "parts": json.dumps({"format": 1.0, "math": None if reward is None else float(right), "length": 0.1 * (i % 3)}),
                "hostile": hostile,
                "ids": list(range(len(pieces))),
                "pieces": pieces,
                "advantage": list(((1.0 if right else -1.0) + wave) * (reward is not None)),
                "logprobs": list(-rng.exponential(0.3, len(pieces))),
                "step_rewards": [1.0, float(right), None],
                "token_rewards": None,
                "kept": i % 7 != 0,
                "weight": 1.0,
                "stop": "end",
                "version": step - 1,
                "source": "policy",
            }
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)


class Page(html.parser.HTMLParser):
    """Elements, addresses and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.data: list = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag in ("script", "style"):
            self.inside.append("data" if ("id", "data") in attrs else tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.texts.append(data)
        elif self.inside[-1] == "data":
            self.data = json.loads(data)


def test_whole_run(tmp_path):
    """One file with every section, for 500 steps, that asks for no address."""
    run = fake_run(tmp_path / "run", steps=500, samples=128)
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    assert [a for a in page.addresses if not (a or "").startswith("#")] == []
    assert "Content-Security-Policy" in path.read_text()[:1000]
    accuracy = [entry[m.EVAL_ACCURACY] for entry in read_metrics(run) if m.EVAL_ACCURACY in entry]
    assert f"{100 * accuracy[0]:.1f} % → {100 * accuracy[-1]:.1f} %" in page.text
    for text in (
        "ppo_clip(clip=0.2, clip_high=0.28)",
        "gate(format, math)",
        *REASONS,
        "while gold fell by 0.06",
        "hack monitor fired",
        "part2",
    ):
        assert text in page.text
    titles = {drawing["title"] for drawing in page.data}
    assert {"Held-out accuracy", "KL to the reference", "Seconds by room", "part0", "part1", "part2"} <= titles
    gold = next(d for d in page.data if d["title"] == "Held-out reward and gold")
    assert [s["name"] for s in gold["series"]] == ["reward (proxy)", "gold"]
    assert gold["marks"][0] == 410
    assert page.tags.count("article") == 2 * (4 + 4 + 4)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("evals", [True, False])
def test_short_runs(tmp_path, steps, evals):
    page = Page(write_report(fake_run(tmp_path / "run", steps=steps, evals=evals and steps > 0)))
    assert ("No step has been measured yet." in page.text) == (steps == 0)
    assert all(len(series["x"]) >= 1 for drawing in page.data for series in drawing["series"])


def test_folder_with_nothing_in_it(tmp_path):
    page = Page(write_report(tmp_path))
    assert "nothing measured yet" in page.text
    assert "The folder holds no recipe.yaml." in page.text


def test_many_parts_and_unknown_metrics(tmp_path):
    run = fake_run(tmp_path / "run", steps=20, parts=60)
    lines = [json.loads(line) | {"my/metric": 7.0, "note": "text", "flag": None} for line in (run / "metrics.jsonl").open()]
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    titles = [drawing["title"] for drawing in Page(write_report(run)).data]
    assert sum(title.startswith("part") for title in titles) == 60
    assert "my/metric" in titles
    assert not {"note", "flag", m.STEP, m.REASONS} & set(titles)


def test_broken_off_and_resumed(tmp_path):
    """A torn last line is left out, the later entry of a step counts, a broken line in the middle is named."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "reward": 0.1}\n{"step": 2, "reward": 0.2}\n{"step": 2, "reward": 0.3}\n{"step": 3, "rew')
    assert read_metrics(tmp_path) == [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.3}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(Refused, match="line 2 is not JSON"):
        write_report(tmp_path)
    with pytest.raises(Refused, match="is not a run folder"):
        write_report(tmp_path / "absent")


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=https://example.org/x onerror=alert(1)><style>*{display:none}</style>",
    "</pre></article></bdi> {{ 7 * 7 }} {% raw %} <!-- ",
    "abc\u202edcba\u2066 \u200b\ufeff\x00\x1b[31m\x07 \U000e0041",
    "\n\n\n\n",
    "z" + "\u0310" * 300,
    "long " * 3000,
    "x" * 10_000_000,
    "",
]


def test_hostile_text(tmp_path):
    """Whatever a model wrote stays text: the page has the same elements as with harmless samples, and stays small."""
    run = fake_run(tmp_path / "run", steps=2, samples=len(HOSTILE) * 8, texts=HOSTILE)
    path = write_report(run)
    page = Page(path)
    assert page.tags.count("script") == 3
    assert page.tags.count("style") == 1
    assert "img" not in page.tags
    assert "\u202e" not in page.text
    assert "\x00" not in page.text
    assert path.stat().st_size < 8_000_000
    (run / "events.jsonl").write_text(json.dumps({"step": 1, "kind": "<b>", "text": "</script>\ud800<script>"}) + "\n")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "</script><x>": 1.0, m.REASONS: {"failed: <u>" * 100: 3}}) + "\n")
    page = Page(write_report(run))
    assert page.tags.count("script") == 3
    assert not {"x", "u"} & set(page.tags)
    assert "⟨U+D800⟩" in page.text


def test_visible():
    assert visible("a\u202eb\x00\n\t", 99) == "a⟨U+202E⟩b⟨U+0000⟩\n\t"
    assert visible("e" + "\u0301" * 9, 99) == "e" + "\u0301" * 3
    assert visible("\u0301a", 99) == "◌\u0301a"
    assert visible("é – 数学 🙂", 99) == "é – 数学 🙂"
    assert visible("abcdef", 4) == "abcd … [2 more characters]"
    assert visible([{"role": "user"}], 99) == '[{"role": "user"}]'


def test_tokens_carry_their_numbers():
    """Blue for positive, orange for negative, as strong as the share of the limit; nothing at zero; the outcome on the last token."""
    row = {"pieces": ["a", "<", "\n", "d"], "advantage": [0.5, -1.0, 0.0, None], "logprobs": [-0.1, -0.25], "reward": 1.0}
    html = str(tokens(row, limit=1.0))
    assert html == (
        '<i class="p" style="--a:0.50" data-t="0|0.5|−0.1|–">a</i><i class="n" style="--a:1.00" data-t="1|−1|−0.25|–">&lt;</i>'
        '<i data-t="2|0|–|–"><b class="nl">↵</b>\n</i><i data-t="3|–|–|1">d</i>'
    )
    long = str(tokens({"pieces": ["t"] * 4000, "advantage": None, "reward": 0.0}, limit=0.0))
    assert long.count("<i ") == 1500
    assert "2,500 tokens left out" in long
    assert 'data-t="3999|' in long


def test_choose_prefers_other_tasks_among_equals():
    row = {"state": "scored", "hostile": False, "reason": ""}
    rewards = [("a", 1.0), ("a", 1.0), ("b", 1.0), ("c", 0.5), ("d", 0.0), ("d", 0.0), ("e", 0.0), ("f", 0.25), ("g", 0.75)]
    rows = [row | {"task_id": task, "reward": reward} for task, reward in rewards]
    assert choose([row | {"task_id": "a", "reward": r} for r in (0.0, 0.0, 1.0, 0.0)])["Best"] == [2]  # the worst are not among the best
    assert choose([row | {"task_id": "a", "reward": 1.0}] * 3) == {"Best": [0, 1], "Worst": [2], "Failed, abstained or hostile": []}
    rows += [row | {"task_id": "h", "reward": None, "state": "failed"}, row | {"task_id": "i", "reward": 2.0, "hostile": True}]
    assert choose(rows) == {"Best": [0, 2, 1, 8], "Worst": [4, 6, 5, 7], "Failed, abstained or hostile": [9, 10]}


def test_reasons_over_time():
    log = [{m.STEP: step, m.REASONS: {"failed: a": 1, "hostile: b": step}} for step in range(1, 17)]
    table = reasons(log)
    assert table.columns[0] == "1–2"
    assert [row[:3] for row in table.rows] == [
        ("hostile: b", [3, 7, 11, 15, 19, 23, 27, 31], 136),
        ("failed: a", [2] * 8, 16),
    ]
    many = reasons([{m.STEP: 1, m.REASONS: {f"failed: {i}": 1 for i in range(50)}}])
    assert len(many.rows) == 30
    assert many.others == 20


def test_curves():
    """Long series become bin means, which keep the mean; the running mean is the plain loop's."""
    y = np.random.default_rng(0).normal(size=5000)
    curves, _ = draw([{m.STEP: i, m.KL: v} for i, v in enumerate(y)])
    series = curves[0].series[0]
    assert len(series.x) == 1000
    assert np.mean(series.y) == pytest.approx(y.mean(), abs=1e-5)
    short_y = y[:30]
    plain = [short_y[max(0, i - 3) : i + 4].mean() for i in range(30)]
    np.testing.assert_allclose(running_mean(short_y, 7), plain, atol=1e-12)


def test_missing_and_infinite_values_are_left_out():
    curves, parts = draw([{m.STEP: 1, m.KL: float("nan")}, {m.STEP: 2, m.KL: 0.5, "reward/x": None}, {m.STEP: 3, m.KL: float("inf")}])
    assert [(c.title, c.series[0].x, c.series[0].y) for c in curves] == [("KL to the reference", [2.0], [0.5])]
    assert parts == []


def test_words():
    assert [short(x) for x in (None, 0.91234, -1234.5, 1.2e-5, 0.0)] == ["–", "0.912", "−1,234", "1.2e-05", "0"]
    assert [clock(s) for s in (4.21, 185, 7620)] == ["4.2 s", "3 min 05 s", "2 h 07 min"]
    assert said([{"use": "kl", "coefficient": 0.1, "x": None}, {"use": "ppo_clip"}]) == "kl(coefficient=0.1), ppo_clip"
