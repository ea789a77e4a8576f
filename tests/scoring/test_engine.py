"""Where rewards run, what their misbehaviour comes to, and that one row never costs another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter

import numpy as np
import pytest

from guerdon.registry import Broke, Refused
from guerdon.rewards import exact, gate, least, reward
from guerdon.samples import Context, Grain, Progress, Rewards, State, Verdict
from guerdon.scoring import Engine


@pytest.fixture(scope="module")
def engine():
    with Engine(workers=2, memory_mb=256) as engine:
        yield engine


def recurse(n):
    return recurse(n + 1) + 1


@reward(deadline=0.5, wrong=-1.0)
def attacked(text):
    match text:
        case "hang":
            while True:
                pass
        case "c":
            return 9 ** (9**9)
        case "recurse":
            return recurse(0)
        case "memory":
            return len(bytearray(1 << 40))
        case "die":
            os._exit(3)
        case "raise":
            raise KeyError("x")
        case "string":
            return "1.0"
        case "nan":
            return float("nan")
        case "none":
            return None
    return float(len(text))


def whys(rewards):
    return [rewards.why(i) for i in range(len(rewards))]


def test_what_a_sample_does_to_its_grader_is_hostile_and_what_the_grader_does_is_failed(engine, texts):
    cases = ["ok", "hang", "c", "recurse", "memory", "die", "raise", "string", "nan", "none", "fine"]
    r = engine.score(attacked, texts(*cases))
    states = dict(zip(cases, r.state.tolist(), strict=True))
    for name in ("hang", "c", "recurse", "memory", "die"):
        assert (states[name], r.total()[cases.index(name)]) == (State.SCORED, -1.0), name
        assert r.why(cases.index(name)).startswith("hostile: ")
    for name in ("raise", "string", "nan"):
        assert states[name] == State.FAILED
    assert states["none"] == State.ABSTAINED
    assert (r.total()[0], r.total()[-1]) == (2.0, 4.0)
    assert r.hostile.tolist() == [name in ("hang", "c", "recurse", "memory", "die") for name in cases]
    assert r.why(1) == "hostile: past its deadline of 0.5 s"
    assert r.why(6) == "KeyError: 'x'"
    assert r.why(7) == "the reward returned a value of type str, not a number"
    assert r.why(8) == "the reward returned nan, not a finite number"


def test_hostile_samples_can_be_failed_instead(texts):
    with Engine(workers=1, on_hostile="failed") as engine:
        r = engine.score(attacked, texts("hang", "ok"))
    assert r.state.tolist() == [State.FAILED, State.SCORED]
    assert r.hostile.tolist() == [True, False]
    with pytest.raises(Refused, match="'wrong' or 'failed'"):
        Engine(on_hostile="ignored")  # type: ignore[arg-type]


def test_one_culprit_among_many_costs_nobody_else(engine, texts):
    many = ["hang" if i in (7, 200) else "die" if i == 100 else "raise" if i % 50 == 3 else "x" * (i % 5) for i in range(300)]
    r = engine.score(attacked, texts(*many))
    for i, text in enumerate(many):
        if text in ("hang", "die"):
            assert r.hostile[i]
        elif text == "raise":
            assert r.state[i] == State.FAILED
        else:
            assert (r.state[i], r.total()[i]) == (State.SCORED, len(text))


@reward(deadline=1.0)
def slow(text):
    time.sleep(0.3)
    return 1.0


def test_a_reward_that_is_slow_but_within_its_deadline_is_never_hostile(engine, texts):
    r = engine.score(slow, texts(*"abcdefghijklmnop"))
    assert r.total().tolist() == [1.0] * 16


def test_rewards_of_a_notebook_run_in_workers_too(engine, texts):
    threshold = 2

    @reward
    def closure(text):
        return float(len(text) > threshold) + os.getpid() * 0

    assert engine.score(closure, texts("a", "abc")).total().tolist() == [0.0, 1.0]


def test_workers_start_with_the_first_reward_that_wants_them(texts):
    with Engine() as engine:
        engine.score(exact, texts("r", "s"))
        assert "pool" not in vars(engine)


# --- services, groups, async ---------------------------------------------------------------------------------------------------------


@reward
def judged(text, judge, progress):
    if text == "raise":
        raise RuntimeError("no answer")
    if text == "exit":
        raise SystemExit
    return judge(text) * progress.share


@reward
def ranked(group):
    if any(s.text == "raise" for s in group):
        raise ValueError("cannot rank")
    if any(s.text == "short" for s in group):
        return [1.0]
    order = sorted(s.text for s in group)
    return [order.index(s.text) for s in group]


@reward
def doubled(samples, judge):
    return np.array([judge(s.text) * 2 for s in samples])


@reward
def whole_rewards(group):
    if group[0].text == "nan":
        return Rewards(step=Grain(np.full((len(group), 2), np.nan), np.zeros((len(group), 2), dtype=np.int8)))
    if group[0].text == "many":
        return Rewards(step=Grain.of(np.zeros((7, 1))))
    return Rewards(step=Grain.of(np.ones((len(group), len(group)))), evidence={"votes": [s.text for s in group]})


@reward(deadline=0.2)
async def remote(text):
    if text == "raise":
        raise ConnectionError("refused")
    if text == "timeout":
        raise TimeoutError("theirs")
    if text == "stubborn":
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
    await asyncio.sleep(60 if text == "late" else 0.01)
    return len(text)


def test_a_missing_service_is_refused_before_anything_runs(engine, texts):
    for e in (judged, exact + judged, doubled):
        with pytest.raises(Refused, match="wants 'judge', which is neither a field of a sample nor a service or model of this run"):
            engine.check(e)

    @reward(name="test_engine_misspelt")
    def misspelt(text, refrence):
        return 0.0

    with pytest.raises(Refused, match=r"wants 'refrence'.*did you mean 'reference'"):
        engine.score(misspelt, texts("a"))


def test_what_cannot_be_put_together_is_refused_before_anything_runs(engine):
    @reward(name="test_engine_steps", grain="step")
    def steps(text):
        raise AssertionError("ran")

    from guerdon.shaping import clip

    for e, said in [
        (least(exact, steps), "min.* needs parts of one grain"),
        (gate(steps, exact), "on whole samples"),
        (exact | clip(2, 1), "low"),
    ]:
        with pytest.raises(Refused, match=said):
            engine.check(e)


def test_services_are_given_by_name_and_exceptions_are_failed(texts):
    engine = Engine(Context(models={"judge": len}, progress=Progress(5, 10)))
    r = engine.score(judged, texts("abcd", "raise", "exit"))
    assert (r.total()[0], r.state.tolist()) == (2.0, [0, 2, 2])
    assert whys(r)[1:] == ["RuntimeError: no answer", "SystemExit"]
    assert "pool" not in vars(engine)


def test_a_group_that_fails_fails_alone(engine, texts):
    r = engine.score(ranked, texts("b", "a", "x", "raise", "short", "y", "c", groups=[0, 0, 1, 1, 2, 2, 0]))
    assert r.total().tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]
    assert r.state.tolist() == [0, 0, 2, 2, 2, 2, 0]
    assert whys(r)[2] == "ValueError: cannot rank"
    assert whys(r)[4] == "the reward returned list of 1 for 2 samples, not a list with one value a sample"


def test_scope_samples_sees_all_in_one_call(texts):
    engine = Engine(Context(models={"judge": len}))
    assert engine.score(doubled, texts("a", "bb", "ccc", groups=[0, 1, 0])).total().tolist() == [2.0, 4.0, 6.0]


def test_a_group_reward_may_return_rewards_of_any_grain(engine, texts):
    r = engine.score(whole_rewards, texts("a", "b", "c", groups=[0, 1, 0]))
    assert r.step.value.tolist() == [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    assert r.step.state.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert r.evidence["votes"] == ["a", "b", "c"]
    r = engine.score(whole_rewards, texts("nan", "many", "c", groups=[0, 1, 2]))
    assert r.state.tolist() == [2, 2, 0]
    assert whys(r)[0] == "the reward returned nan, not a finite number"
    assert whys(r)[1] == "the reward returned Rewards of 7 for 1 samples, not a list with one value a sample"


def test_async_rewards_run_side_by_side_and_late_ones_are_failed(engine, texts):
    many = ["late", "raise", "timeout", "stubborn", *["ok"] * 200]
    start = time.perf_counter()
    r = engine.score(remote, texts(*many))
    assert time.perf_counter() - start < 5
    assert r.state.tolist() == [2, 2, 2, 2, *[0] * 200]
    assert whys(r)[:4] == [
        "late: no answer within 0.2 s",
        "ConnectionError: refused",
        "TimeoutError: theirs",
        "late: no answer within 0.2 s",
    ]


def test_async_rewards_run_where_a_loop_runs_already(engine, texts):
    async def notebook():
        return engine.score(remote, texts("ok"))

    assert asyncio.run(notebook()).total().tolist() == [2.0]


def test_concurrency_is_limited(texts):
    most = Counter()

    @reward(name="test_engine_limited")
    async def limited(text):
        most["now"] += 1
        most["most"] = max(most["most"], most["now"])
        await asyncio.sleep(0.01)
        most["now"] -= 1
        return 0.0

    with Engine(concurrency=3) as engine:
        engine.score(limited, texts(*"abcdefghij"))
    assert most["most"] == 3


# --- batches, references, randomness -------------------------------------------------------------------------------------------------


@reward(batch=True, inline=True)
def batched(text, reference, workers):
    assert workers.run(len, text, 5.0)[0].value == len(text[0])
    return [None if t == "none" else float(t == r) for t, r in zip(text, reference, strict=True)]


@reward(batch=True)
def batched_badly(text):
    if "raise" in text:
        raise ValueError("all of them")
    return [1.0]


def test_a_batch_reward_is_given_columns_and_the_pool(engine, texts):
    r = engine.score(batched, [*texts("r", "none", "x"), *texts("r", reference=None)])
    assert (r.total().tolist(), r.state.tolist()) == ([1.0, 0.0, 0.0, 0.0], [0, 1, 0, 2])
    assert whys(r)[3] == "the task has no reference"
    r = engine.score(batched_badly, texts("a", "raise"))
    assert whys(r) == ["ValueError: all of them"] * 2
    r = engine.score(batched_badly, texts("a", "b"))
    assert whys(r) == ["the reward returned list of 1 for 2 samples, not a list with one value a sample"] * 2


def test_a_task_without_a_reference_is_failed_where_one_is_wanted(engine, texts):
    r = engine.score("exact + 0 * length(unit='characters')", [*texts("r"), *texts("r", reference=None)])
    assert r.state.tolist() == [State.SCORED, State.FAILED]
    assert r.why(1) == "exact: the task has no reference"
    assert r.parts["length(unit='characters')"].rewards.state.tolist() == [0, 0]


@reward
def lucky(text, rng):
    return rng.random()


def test_random_rewards_depend_on_seed_and_sample_alone(texts):
    def run(seed, samples):
        return Engine(Context(rng=np.random.default_rng(seed))).score(lucky, samples).total()

    some = texts("a", "b", "c", "a")
    first = run(0, some)
    assert len(set(first.tolist())) == 4
    np.testing.assert_array_equal(first, run(0, some))
    np.testing.assert_array_equal(first[[2, 1]], run(0, [some[2], some[1]]))
    assert not np.array_equal(first, run(1, some))
    engine = Engine(Context(rng=np.random.default_rng(0)))
    assert not np.array_equal(engine.score(lucky, some).total(), engine.score(lucky, some).total())


def test_a_verdict_keeps_its_evidence_and_reason(engine, texts):
    @reward(name="test_engine_evidence")
    def evidence(text):
        return Verdict(1.0, "because", evidence={"path": [text]}) if text == "a" else 0.0

    r = engine.score(evidence, texts("a", "b"))
    assert (r.why(0), r.evidence) == ("because", {"path": [["a"], None]})
    r = engine.score(evidence + exact, texts("a", "b"))
    assert r.evidence == {"test_engine_evidence.path": [["a"], None]}


def test_a_text_or_an_expression_may_be_given(engine, texts):
    assert engine.score("exact", texts("r")).total().tolist() == [1.0]
    with pytest.raises(Refused, match="did you mean 'exact'"):
        engine.check("exatc")


def test_a_closed_engine_starts_again(texts):
    engine = Engine(workers=1)
    engine.score(attacked, texts("ok"))
    engine.close()
    assert engine.score(attacked, texts("ok")).total().tolist() == [2.0]
    engine.close()


def test_fifty_thousand_samples_with_hanging_graders_finish(texts):
    n = 50_000
    many = ["hang" if i % 10_000 == 5 else "x" * (i % 7) for i in range(n)]
    samples = texts(*many)
    with Engine(workers=2) as engine:
        r = engine.score(attacked, samples)
    assert r.hostile.sum() == 5
    assert not r.failed.any()
    ok = ~r.hostile
    np.testing.assert_array_equal(r.total()[ok], np.array([i % 7 for i in range(n)])[ok])


def test_a_run_that_breaks_inside_a_reward_breaks_off(engine, texts):
    @reward(name="test_engine_breaking", inline=True)
    def breaking(text):
        raise Broke("The workers are gone.")

    with pytest.raises(Broke, match="The workers are gone"):
        engine.score(breaking, texts("a"))


def test_a_shape_may_refuse(engine, texts):
    from guerdon.shaping import shape

    @shape
    def test_engine_refusing(rewards, samples, context):
        raise Refused("not with these")

    with pytest.raises(Refused, match="not with these"):
        engine.score(exact | test_engine_refusing(), texts("r"))
