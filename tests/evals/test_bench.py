"""Every bench from small files in its published layout: by hand, from a reward and from a file of scores; and what bad files are told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import guerdon as g
from guerdon.cli import app
from guerdon.evals.bench import Report, bench, benches, layouts, page
from guerdon.evals.bench.scores import to_samples
from guerdon.registry import Broke, Refused
from guerdon.samples import Verdict

Rows = list[dict[str, Any]]
Write = Callable[[str, Rows], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, rows: Rows) -> Path:
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(rows))
        elif name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return to


@g.reward(name="bench_stated", inline=True)
def stated(text: str) -> Verdict:
    """What the text says of itself: its last word."""
    word = text.split()[-1]
    return Verdict.fail("the judge is down") if word == "fail" else Verdict(float(word))


@g.reward(name="bench_steps", inline=True, grain="step")
def stated_steps(steps: list[str]) -> list[float]:
    return [float(step.split()[-1]) for step in steps]


@g.reward(name="bench_tokens", inline=True, grain="token")
def stated_tokens(text: str) -> list[float]:
    return [1.0 for _ in text]


def pair(i: int, subset: str, chosen: float | str, rejected: float | str) -> dict[str, Any]:
    return {"id": i, "prompt": f"p{i}", "chosen": f"c {chosen}", "rejected": f"r {rejected}", "subset": subset}


def many(id_: str, subset: str, chosen: Sequence[Any], rejected: Sequence[Any], **more: Any) -> dict[str, Any]:
    answers = {"chosen": [f"c {x}" for x in chosen], "rejected": [f"r {x}" for x in rejected]}
    return {"id": id_, "prompt": f"p{id_}", **answers, "subset": subset, "num_correct": len(chosen), **more}


def values(lines: Sequence[Any]) -> dict[str, float]:
    return {line.name: line.value for line in lines}


# --- each bench by hand ------------------------------------------------------------------------------------------------------------


def test_rewardbench_weighs_subsets_within_sections(write: Write) -> None:
    rows = [
        pair(0, "math-prm", 1, 0), pair(1, "math-prm", 1, 2), pair(2, "hep-cpp", 2, 1), pair(3, "hep-go", 1, 1),
        pair(4, "donotanswer", 1, 0), pair(5, "donotanswer", 1, 0), pair(6, "mine", 1, 0),
    ]  # fmt: skip
    report = bench("rewardbench", write("rb.jsonl", rows), reward="bench_stated")
    reasoning = (984 * 0.5 + 164 * 1 + 164 * 0) / (984 + 164 + 164)
    assert values(report.lines) == pytest.approx({"Safety": 1, "Reasoning": reasoning, "Other": 1, "mean of sections": (2 + reasoning) / 3})
    assert values(report.more["subsets"])["hep-go"] == 0  # equal scores are wrong
    assert report.counted is None


def test_rewardbench2_shares_and_its_ties(write: Write) -> None:
    rows = [
        many("a", "Math", [5], [1, 2, 3]), many("b", "Math", [3], [3, 3, 1]),
        many("c", "Focus", [2], [3, 0, 0]),
        many("ref:0", "Ties", [2], [1]), many("tied:0", "Ties", [3, 2.5], [1, 0]),
        many("ref:1", "Ties", [0], [1]), many("tied:1", "Ties", [3, 1], [0.5]),
    ]  # fmt: skip
    report = bench("rewardbench2", write("rb2.parquet", rows), reward="bench_stated")
    # prompt 1: gaps ref -1, tied 0.5, spread 2
    soft = (math.tanh(1 / 0.5 - 1) + math.tanh(-1 / 2 - 1)) / 2
    ties = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * soft
    want = {"Math": (1 + 1 / 3) / 2, "Focus": 0.0, "Ties": ties}
    assert values(report.lines) == pytest.approx({**want, "mean of subsets": sum(want.values()) / 3}, abs=1e-9)
    constant = bench("rewardbench2", write("rb2.parquet", rows[:3]), reward="0 * bench_stated")
    assert constant.overall.value == 0.25


def test_rm_bench_averages_domains_and_difficulties(write: Write) -> None:
    fancy = {"chosen": ["c 1", "c 2", "c 3"], "rejected": ["r 1", "r 2", "r 3"]}
    rows = [
        {"id": "0", "prompt": "p", **fancy, "domain": "chat"},
        {"id": "1", "prompt": "p", **fancy, "domain": "safety-refuse"},
        {"id": "2", "prompt": "p", "chosen": ["c 9"] * 3, "rejected": ["r 1"] * 3, "domain": "safety-response"},
    ]
    report = bench("rm-bench", write("rm.json", rows), reward="bench_stated")
    assert values(report.lines) == pytest.approx({"chat": 1 / 3, "safety": (1 / 3 + 1) / 2, "mean of domains": 0.5})
    assert values(report.more["difficulty, mean of domains"]) == pytest.approx({"easy": 1.0, "normal": 0.25, "hard": 0.25})


def judged(i: int, source: str, a: Any, b: Any, label: str) -> dict[str, Any]:
    return {"pair_id": f"x{i}", "source": source, "question": "q", "response_A": f"a {a}", "response_B": f"b {b}", "label": label}


def test_judgebench_from_a_reward_and_from_decisions(write: Write) -> None:
    rows = [judged(0, "mmlu-pro-law", 2, 1, "A>B"), judged(1, "livecodebench", 2, 1, "B>A"), judged(2, "mmlu-pro-math", 1, 1, "B>A")]
    data = write("judge.jsonl", rows)
    report = bench("judgebench", data, reward="bench_stated")
    assert values(report.lines) == pytest.approx({"mmlu-pro": 0.5, "livecodebench": 0, "all": 1 / 3})
    games = [
        {"pair_id": "x0", "judgments": [{"decision": "A>B"}, {"decision": "A=B"}]},  # one win and a tie: right
        {"pair_id": "x2", "judgments": [{"decision": "B>A"}, {"decision": "B>A"}]},  # the same place twice: undecided
        {"pair_id": "x1", "judgments": [{"decision": "B>A"}, None]},
    ]
    report = bench("judgebench", data, scores=write("games.jsonl", games))
    assert values(report.lines) == pytest.approx({"mmlu-pro": 0.5, "livecodebench": 1, "all": 2 / 3})
    games[2] = {"pair_id": "x1", "decision": None}
    report = bench("judgebench", data, scores=write("games.jsonl", games))
    assert report.failed == 2
    assert report.overall.n == 2
    assert report.counted == pytest.approx(1 / 3)


def solutions(problem: int, scores: Sequence[Sequence[float]], subject: str = "Algebra") -> Rows:
    return [
        {
            "problem": f"P{problem}", "answer": "1", "eval_solution": [f"step {x}" for x in steps], "problem_id": problem,
            "solution_type": "rejected" if k else "chosen", "solution_reference": f"m{k}", "subject": subject, "id": 10 * problem + k,
        }
        for k, steps in enumerate(scores)
    ]  # fmt: skip


def test_rewardmath_reports_every_way_to_put_steps_together(write: Write) -> None:
    rows = [*solutions(0, [[0.9, 0.8], [0.1, 0.7], [0.3, 0.75]]), *solutions(1, [[0.5, 0.6], [0.9, 0.6]], "Geometry")]
    data = write("math.json", rows)
    report = bench("rewardmath", data, reward="bench_steps")
    assert values(report.lines) == {"Algebra": 1.0, "Geometry": 0.0, "all": 0.5}
    assert values(report.more["other metrics"]) == pytest.approx(
        {"accuracy, ties pass": 1.0, "mean reciprocal rank": 0.75, "one to one": 0.75}
    )
    ways = values(report.more["accuracy by the way step scores are put together"])
    assert ways["max"] == 0.5
    assert len(ways) == 8
    theirs = [
        {"problem": "P1", "solution_reference": ["m0", "m1"], "score": [3.0, 2.0]},
        {"problem": "P0", "solution_reference": ["m0", "m1", "m2"], "score": [3.0, 2.0, 3.0]},
    ]
    report = bench("rewardmath", data, scores=write("theirs.json", theirs))
    assert values(report.lines) == {"Algebra": 0.0, "Geometry": 1.0, "all": 0.5}
    wins = [
        {"problem": "P0", "solution_reference": ["m1", "m2"], "score": ["A", "B"], "chosen_position": ["A", "B"]},
        {"problem": "P1", "solution_reference": ["m1"], "score": ["B"], "chosen_position": ["A"]},
    ]
    report = bench("rewardmath", data, scores=write("wins.json", wins))
    assert values(report.lines) == {"Algebra": 1.0, "Geometry": 0.0, "all": 0.5}
    alone = [{"id": row["id"], "reward": float(k), "state": "scored"} for k, row in enumerate(reversed(rows))]
    assert bench("rewardmath", data, scores=write("alone.jsonl", alone)).overall.value == 1.0


def process(i: int, scores: Sequence[float], label: int, of: str = "gsm8k") -> dict[str, Any]:
    return {"id": f"{of}-{i}", "problem": "q", "steps": [f"line one\nline two {x}" for x in scores], "label": label}


def test_processbench_f1_by_hand(write: Write) -> None:
    rows = [
        process(0, [0.9, 0.2, 0.1], 1), process(1, [0.2, 0.1], 1), process(2, [0.9, 0.6], -1), process(3, [0.4], -1), process(4, [0.7], -1),
        process(0, [0.9, 0.8], 1, "math"), process(1, [0.3, 0.8], -1, "math"),
    ]  # fmt: skip
    data = write("pb.jsonl", rows)
    report = bench("processbench", data, reward="bench_steps")
    gsm = 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3)
    assert values(report.lines) == pytest.approx({"gsm8k": gsm, "math": 0.0, "mean of F1": gsm / 2})
    low = bench("processbench", data, reward="bench_steps", threshold=0.15)
    assert values(low.more["accuracy"])["gsm8k, all right"] == 1.0
    fitted = bench("processbench", data, reward="bench_steps", threshold="gsm8k")
    assert fitted.lines[0].value >= report.lines[0].value
    with pytest.raises(Refused, match="did you mean 'gsm8k'"):
        bench("processbench", data, reward="bench_steps", threshold="gsmk")
    with pytest.raises(Refused, match="one score for a whole answer"):
        bench("processbench", data, reward="bench_stated")
    with pytest.raises(Refused, match=r"`bench_tokens` gives \d+ scores for the 3 steps of item 'gsm8k-0'; use one of steps"):
        bench("processbench", data, reward="bench_tokens")
    said = [{"id": row["id"], "prediction": row["label"]} for row in rows]
    assert bench("processbench", data, scores=write("said.jsonl", said)).overall.value == 1
    said[0]["prediction"] = None
    some = bench("processbench", data, scores=write("said.jsonl", said))
    assert some.overall.value == 1
    assert some.overall.failed == 1
    assert some.counted == pytest.approx((2 * 0.5 / 1.5 + 1) / 2)  # undecided is wrong
    flat = [{"id": row["id"], "scores": [float(s.split()[-1]) for s in row["steps"]]} for row in rows]
    assert bench("processbench", data, scores=write("flat.jsonl", flat)).overall.value == pytest.approx(gsm / 2)


def test_the_best_threshold_by_trying_all(write: Write) -> None:
    rng = np.random.default_rng(0)
    items = [([float(x) for x in rng.uniform(size=4).round(1)], int(rng.integers(-1, 4))) for _ in range(40)]
    found = benches.best_threshold(items)  # pyright: ignore

    def value(cut: float) -> float:
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for steps, label in items:
            first = next((i for i, p in enumerate(steps) if p < cut), -1)
            hits[label != -1].append(first == label)
        a, b = (sum(h) / len(h) for h in hits.values())
        return 2 * a * b / (a + b) if a + b else 0.0

    assert value(found) == pytest.approx(max(value(cut) for cut in np.linspace(-0.5, 1.5, 401)))


def answer(prompt: str, score: Any, right: bool, said: str = "", **more: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "completion": f"The answer is {said or int(right)}.\n{score}",
        "is_correct": right,
        "answer": said or None,
        **more,
    }


def test_best_of_n_from_rows_of_answers(write: Write) -> None:
    rows = [answer("p", 0.9, True, "1"), answer("p", 0.5, False, "2"), answer("p", 0.6, False, "2"), answer("p", 0.1, False, "3")]
    rows += [answer("q", 0.9, False, "1"), answer("q", "fail", True, "2"), answer("q", 0.6, True, "3"), answer("q", 0.1, True, "3")]
    report = bench("best-of-n", write("answers.jsonl", rows), reward="bench_stated")
    assert report.curves["best of n"].n == [1, 2, 4]
    # p: the right one is in a pair of four with 1/2; q: the wrong one wins in 1/2 of the pairs
    assert report.curves["best of n"].value == pytest.approx([0.5, (0.5 + 0.5) / 2, 0.5])
    assert report.curves["any of n is right"].value == pytest.approx([0.5, 0.75, 1.0])
    assert all(0 <= x <= 1 for curve in report.curves.values() for x in (*curve.low, *curve.high) if x is not None)
    assert report.curves["majority vote"].value[-1] == 0.5  # p: 2 wins; q: 3 wins
    assert report.curves["weighted vote"].value[-1] == 0.0  # p: 2 has 1.1; q: 1 has 0.9, 3 has 0.7
    assert report.failed == 1
    assert "judge is down" in report.first_failed


def test_votes_read_the_final_answer_where_the_file_does_not_say_it(write: Write) -> None:
    rows = [{"prompt": "p", "completion": f"so\n#### {n}", "is_correct": n == 7} for n in (7, 7, 8)]
    _, items = layouts.read(write("a.jsonl", rows), ["answers"])
    from guerdon.evals.bench.answers import votes_of

    assert votes_of(items[0]) == ["7", "7", "8"]


def test_overoptimization_finds_the_peak(write: Write) -> None:
    """The gold rises with the proxy up to its middle and falls after it."""
    rng = np.random.default_rng(0)
    rows = []
    for p in range(30):
        for proxy in rng.uniform(-1, 1, 64):
            rows.append({"prompt": f"p{p}", "completion": f"x {proxy}", "gold": 1 - (proxy - 0.5) ** 2})
    report = bench("overoptimization", write("o.jsonl", rows), reward="bench_stated")
    gold = report.curves["gold"]
    assert gold.n == [1, 2, 4, 8, 16, 32, 64]
    assert report.kl[-1] == pytest.approx(math.log(64) - 63 / 64)
    for n, value in zip(gold.n, gold.value, strict=True):  # the highest of n uniform numbers is a Beta(n, 1)
        assert value == pytest.approx(1 - 4 * (n / ((n + 1) ** 2 * (n + 2)) + (n / (n + 1) - 0.75) ** 2), abs=0.08)
    assert gold.n[int(np.argmax(gold.value))] in (4, 8)
    assert report.curves["proxy"].value[-1] == pytest.approx(1 - 2 / 65, abs=0.02)
    lost = report.more["gold"][-1]
    assert lost.low is not None
    assert lost.low > 0


def test_calibration_and_length_of_a_file(write: Write) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for p in range(150):
        for _ in range(4):
            score = rng.uniform()
            rows.append({"prompt": f"p{p}", "completion": f"{'long ' * int(9 * score)}{score}", "is_correct": bool(rng.uniform() < score)})
    data = write("c.jsonl", rows)
    report = bench("calibration", data, reward="bench_stated")
    assert report.overall.name == "as it is"
    assert report.overall.value < 0.12
    scaled = bench("calibration", data, reward="20 * bench_stated - 10")
    assert scaled.calibration is not None
    assert scaled.calibration.logits
    assert scaled.overall.value > 1.5 * values(scaled.lines)["temperature"] > 0
    biased = bench("length-bias", data, reward="bench_stated")
    assert biased.overall.name == "longer minus shorter"
    assert biased.overall.value > 0.8
    with pytest.raises(Refused, match="right and wrong answers"):
        bench("calibration", write("one.jsonl", rows[:4]), reward="bench_stated")


# --- verdicts that fail ------------------------------------------------------------------------------------------------------------


def test_failed_verdicts_are_left_out_counted_and_told(write: Write) -> None:
    rows = [pair(0, "math-prm", 1, 0), pair(1, "math-prm", "fail", 0), pair(2, "donotanswer", 0, 1)]
    report = bench("rewardbench", write("rb.jsonl", rows), reward="bench_stated")
    assert values(report.lines) == {"Safety": 0.0, "Reasoning": 1.0, "mean of sections": 0.5}
    assert [line.failed for line in report.lines] == [0, 1, 1]
    assert report.counted == pytest.approx((0.75 + 0.0) / 2)  # half right, as its code counts it
    assert page.failures(report)[0].startswith("1 of 6 answers have no verdict, the first: item '1', answer 1: failed: the judge is down.")
    four = [many("a", "Math", ["fail"], [1, 2, 3]), many("b", "Math", ["fail"], ["fail"] * 3), many("c", "Math", [1], [0, 0, 0])]
    report = bench("rewardbench2", write("rb2.jsonl", four), reward="bench_stated")
    assert report.overall.value == 1
    assert report.overall.n == 1
    assert report.counted == pytest.approx((0 + 0.25 + 1) / 3)
    with pytest.raises(Broke, match="No answer has a verdict by `bench_stated`: failed: the judge is down"):
        bench("rewardbench", write("rb.jsonl", [pair(0, "x", "fail", "fail")]), reward="bench_stated")


# --- samples and scores ------------------------------------------------------------------------------------------------------------


def test_steps_of_the_layout_are_the_samples_steps(write: Write) -> None:
    _, items = layouts.read(write("pb.jsonl", [process(0, [0.9, 0.2], 1)]), ["processbench"])
    (sample,) = to_samples(items)
    assert sample.steps == ["line one\nline two 0.9\n\n", "line one\nline two 0.2"]
    _, items = layouts.read(write("m.json", solutions(0, [[0.1, 0.2], [0.3]])), ["rewardmath"])
    first, second = to_samples(items)
    assert first.steps == ["step 0.1\n", "step 0.2"]
    assert first.group == second.group
    assert first.task.reference == "1"


def test_a_reward_sees_the_columns_of_each_answer_but_not_its_truth(write: Write) -> None:
    rows = [{"id": "t", **answer("p", s, s > 0.5, reference="42", model=f"m{s}")} for s in (0.1, 0.9)]
    _, items = layouts.read(write("a.jsonl", rows), ["answers"])
    first, second = to_samples(items)
    assert (first.meta["model"], second.task.meta["model"]) == ("m0.1", "m0.9")
    assert first.task.reference == "42"
    assert not {"is_correct", "gold", "completion"} & set(first.meta)


def test_scores_written_are_scores_read(write: Write, tmp_path: Path) -> None:
    for name, rows, reward in [
        ("rewardbench2", [many("a", "Math", [5], [1, 2, "fail"]), many("b", "Math", [3], [3, 3, 1])], "bench_stated"),
        ("processbench", [process(0, [0.9, 0.2, 0.1], 1), process(2, [0.9, 0.6], -1)], "bench_steps"),
        ("rewardmath", solutions(0, [[0.9, 0.8], [0.1, 0.7]]), "bench_steps"),
    ]:
        data = write(f"{name}.jsonl", rows)
        first = bench(name, data, reward=reward)
        files = page.write(first, tmp_path / "out")
        assert [file.name for file in files] == ["bench.json", "bench.png", "scores.jsonl"]
        again = bench(name, data, scores=files[2])
        assert values(again.lines) == values(first.lines)
        assert again.failed == first.failed
        plain = json.loads(files[0].read_text())
        assert plain["lines"][-1]["value"] == first.overall.value
        assert plain["failed"] == first.failed


def test_an_answer_file_scored_by_guerdon_score_is_a_file_of_scores(write: Write, tmp_path: Path) -> None:
    rows = [{"id": f"t{p}", **answer(f"p{p}", s, s > 0.5)} for p in range(3) for s in (0.1, 0.9)]  # ids repeat, as answers to one task do
    data, out = write("a.jsonl", rows), tmp_path / "scored.jsonl"
    done = CliRunner().invoke(app, ["score", str(data), "--reward", "bench_stated", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert bench("best-of-n", data, scores=out).overall.value == 1.0
    swapped = out.read_text().splitlines()
    out.write_text("\n".join([swapped[1], swapped[0], *swapped[2:]]))
    with pytest.raises(Refused, match="row 1: `completion` is another text"):
        bench("best-of-n", data, scores=out)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "a", "scores": [1, 0, 0, 0]}], "no score of item 'b' (row 2 of the bench), and of 3 other answers"),
        ([{"id": "c", "scores": [1, 0, 0, 0]}], "row 1: the bench has no item with the id 'c'"),
        ([{"id": "a", "scores": [1, 0, 0]}], "row 1: 3 scores, but the item 'a' has 4 answers"),
        ([{"id": "a", "scores": [1, 0, 0, 0]}] * 2, "row 2: the item 'a' has its scores in row 1 already"),
        ([{"id": "a", "scores": [1, 0, 0, "x"]}], "row 1: the score 'x' is not a number"),
        ([{"scores": [1, 0, 0, 0]}], "row 1: no `id`"),
        ([{"id": "a", "value": 3}], "row 1: no `scores`"),
    ],
)
def test_files_of_scores_that_do_not_fit(write: Write, rows: Rows, says: str) -> None:
    data = write("rb2.jsonl", [many("a", "Math", [5], [1, 2, 3]), many("b", "Math", [3], [3, 3, 1])])
    with pytest.raises(Refused) as error:
        bench("rewardbench2", data, scores=write("s.jsonl", rows))
    assert says in str(error.value)
    assert "s.jsonl" in str(error.value)


# --- files of another layout -------------------------------------------------------------------------------------------------------

EXAMPLES: dict[str, Rows] = {
    "rewardbench": [pair(0, "math-prm", 1, 0)],
    "rewardbench2": [many("a", "Math", [5], [1, 2, 3])],
    "rm-bench": [{"id": "0", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c", "d"], "domain": "chat"}],
    "judgebench": [judged(0, "mmlu-pro-law", 2, 1, "A>B")],
    "rewardmath": solutions(0, [[0.9], [0.1]]),
    "processbench": [process(0, [0.9, 0.2, 0.1], 1)],
    "answers": [answer("p", 1, True)],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_layout_is_told_from_the_others(write: Write, name: str) -> None:
    path = write("x.jsonl", EXAMPLES[name])
    assert layouts.read(path, [name])[0] == name
    assert [other for other, layout in layouts.LAYOUTS.items() if not layout.lacks(EXAMPLES[name][0])] == [name]
    other = next(n for n in EXAMPLES if n != name)
    with pytest.raises(Refused, match=rf"not in the layout of {other}: its columns are those of {name}, and for {other} row 1 has .*`"):
        layouts.read(path, [other])


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("rewardbench", {"chosen": None}, "row 2: no `chosen`"),
        ("rewardbench", {"chosen": ["x"]}, "row 2: `chosen` is of type list, not str"),
        ("rewardbench2", {"num_correct": 2}, "row 2: `num_correct` is 2, but `chosen` has 1"),
        ("rewardbench2", {"rejected": ["x", 3]}, "row 2: `rejected` is not a list of texts"),
        ("rewardbench2", {"subset": "Ties"}, "such as 'ref:3' or 'tied:3'"),
        ("rm-bench", {"rejected": ["c"]}, "row 2: `chosen` has 2 styles and `rejected` 1"),
        ("judgebench", {"label": "A"}, "row 2: `label` is 'A'"),
        ("rewardmath", {"solution_type": "right"}, "row 2: `solution_type` is 'right'"),
        ("rewardmath", {"solution_type": "chosen"}, "has no rejected solution"),
        ("rewardmath", {"problem": "P7"}, "another `problem` than in row 1"),
        ("processbench", {"label": 3}, "row 2: `label` is 3, but there are 3 steps"),
        ("answers", {"is_correct": "yes"}, "row 2: `is_correct` is of type str"),
        ("answers", {"is_correct": None}, "row 2: no `is_correct` and no `gold`"),
    ],
)
def test_a_bad_row_is_named(write: Write, name: str, change: dict[str, Any], says: str) -> None:
    rows = EXAMPLES[name] if len(EXAMPLES[name]) > 1 else EXAMPLES[name] * 2
    with pytest.raises(Refused) as error:
        layouts.read(write("x.jsonl", [rows[0], {**rows[1], **change}]), [name])
    assert says in str(error.value)
    assert "x.jsonl" in str(error.value)


def test_unknown_columns_are_told_the_nearest_layout(write: Write) -> None:
    path = write("x.jsonl", [{"prompt": "p", "chosen": "a", "reject": "b", "subset": "x"}])
    with pytest.raises(Refused, match="in no known layout; the nearest is rewardbench, for which row 1 has no `rejected`"):
        bench("rewardbench", path, reward="bench_stated")
    with pytest.raises(Refused, match="did you mean 'rewardbench2'"):
        bench("rewardbench-2", path, reward="bench_stated")
    with pytest.raises(Refused, match="one of the two"):
        bench("rewardbench", path)
    with pytest.raises(Refused, match="cannot be read"):
        bench("rewardbench", path.with_name("none.jsonl"), reward="bench_stated")
    with pytest.raises(Refused, match="Name the file of answers"):
        bench("best-of-n", reward="bench_stated")
    path.write_text("[1, 2]")
    with pytest.raises(Refused, match="row 1: a JSON int, not an object"):
        bench("rewardbench", path, reward="bench_stated")


def test_ids_that_repeat_are_told_apart_by_category(write: Write) -> None:
    rows = [pair(0, "a", 1, 0), pair(0, "b", 1, 0)]
    assert [item.id for item in layouts.read(write("x.jsonl", rows), ["rewardbench"])[1]] == ["a/0", "b/0"]
    report = bench("rewardbench", write("x.jsonl", rows), scores=write("s.jsonl", [{**row, "scores": [1, 0]} for row in rows]))
    assert report.overall.value == 1
    with pytest.raises(Refused, match="row 2: the id 'a/0' stands in row 1 already"):
        layouts.read(write("x.jsonl", [rows[0], rows[0]]), ["rewardbench"])


# --- the verb ----------------------------------------------------------------------------------------------------------------------


def test_the_verb(write: Write, tmp_path: Path) -> None:
    data = write("rb.jsonl", [pair(i, "donotanswer", i % 3, 1) for i in range(9)])
    done = CliRunner().invoke(app, ["bench", "rewardbench", "--data", str(data), "--reward", "bench_stated", "--out", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    assert "mean of sections" in done.output
    assert (tmp_path / "o" / "bench.png").read_bytes()[:4] == b"\x89PNG"
    few = CliRunner().invoke(app, ["bench", "rewardbench", "--data", str(data), "--reward", "bench_stated", "--limit", "2"])
    assert "2 items, 4 answers" in few.output


def test_a_report_is_plain(write: Write) -> None:
    report = bench("rewardbench", write("rb.jsonl", [pair(0, "x", 1, 0)]), reward="bench_stated")
    assert isinstance(report, Report)
    assert json.dumps(report.json(), allow_nan=False)
    assert page.table(report.lines).splitlines()[-1] == "| mean of sections | 1 | 1.000 | - |"
