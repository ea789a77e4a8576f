"""What is cached, under which key, and what never is; the journal of a run."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from guerdon.registry import Broke, Refused
from guerdon.rewards import exact, reward
from guerdon.rewards.core import Reward
from guerdon.samples import Context, Progress, Rewards, Sample, Task, Verdict
from guerdon.scoring import Cache, Engine, Journal
from guerdon.scoring.cache import content, group_key, leaf_key, sample_key

calls: list[str] = []


@pytest.fixture(autouse=True)
def _forget():
    calls.clear()


@pytest.fixture
def cached(tmp_path):
    """Score through one cache file, with a new engine and connection each time."""

    def score(e, samples, context=None, **options):
        cache = Cache(tmp_path / "cache.sqlite")
        with Engine(context, cache=cache, workers=1, **options) as engine:
            rewards = engine.score(e, samples)
        cache.close()
        return rewards

    return score


@reward(inline=True)
def noted(text, reference, meta, plus: float = 0.0):
    calls.append(text)
    if text == "none":
        return None
    if text == "raise":
        raise ValueError
    if text == "attack":
        return Verdict(-1.0, "hostile: it said so")
    return Verdict(len(text) + plus, "why", evidence={"path": (1, [text])})


def same(a: Rewards, b: Rewards) -> None:
    np.testing.assert_array_equal(a.total(), b.total())
    np.testing.assert_array_equal(a.state, b.state)
    assert a.outcome.reason == b.outcome.reason
    assert a.evidence == b.evidence


def test_a_known_sample_is_not_scored_again_and_comes_back_as_it_was(cached, texts):
    samples = texts("a", "bb", "none")
    first = cached(noted, samples)
    assert calls == ["a", "bb", "none"]
    same(first, cached(noted, samples))
    cached(noted, texts("a", "new"))
    assert calls == ["a", "bb", "none", "new"]


def test_failed_and_hostile_verdicts_are_never_kept(cached, texts):
    for _ in range(2):
        cached(noted, texts("raise", "attack", "a"))
    assert calls == ["raise", "attack", "a", "raise", "attack"]


def test_the_key_holds_fields_parameters_and_version(cached, texts):
    [sample] = texts("a")
    cached(noted, [sample])
    for other in (
        texts("a", reference="s"),
        texts("a", reference=["r"]),
        texts("a", x=1),
        texts("a", x=1.0),
        texts("a", x="1"),
        texts("a", x=True),
    ):
        cached(noted, other)
    assert len(calls) == 7
    cached(noted(plus=1), [sample])
    cached(noted(plus=1), [sample])
    assert len(calls) == 8
    from dataclasses import replace

    cached(replace(noted, version="2"), [sample])
    assert len(calls) == 9
    sample.task = Task("another", "another prompt", "r")  # fields that the reward does not see
    cached(noted, [sample])
    assert len(calls) == 9


def test_keys_tell_alike_contents_apart():
    arrays = [np.array([1, 2]), np.array([1.0, 2.0]), np.array([[1, 2]]), np.array([1, 2], dtype=np.int32), [1, 2], (1, 2)]
    scalars = [None, 0, 0.0, -0.0, False, "", "0", b"", float("nan"), [], {}, "a\x00b", "a", "\ud800", 2**70, [[]], {"a": None}, {"a": 1}]
    nested = [{"a": {"b": 1}}, {"a": {"b": 2}}, [{"a": 1}, {}], [{}, {"a": 1}], ["ab", "c"], ["a", "bc"], [arrays[0]], [arrays[1]]]
    keys = [content(x) for x in (*arrays, *scalars, *nested)]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert content({"a": 1, "b": 2}) == content({"b": 2, "a": 1})
    assert content(object()) is None
    assert content([len]) is None


def lift(**options) -> Reward:
    return Reward("r", len, **options)


def test_evidence_that_is_no_data_is_scored_again_and_no_error(cached, texts):
    @reward(name="test_cache_odd", inline=True)
    def odd(text):
        calls.append(text)
        return Verdict(1.0, evidence={"x": object()})

    for _ in range(2):
        assert cached(odd, texts("a")).total().tolist() == [1.0]
    assert calls == ["a", "a"]
    with pytest.raises(Refused, match="cannot keep these rewards: evidence of type object"):
        Journal(":memory:").write("1", cached(odd, texts("a")))


def test_what_is_no_pure_function_is_not_cached():
    class Model:
        version = 3
        path = "m"

    context = Context(models={"judge": Model(), "bare": object()}, progress=Progress(1, 2), rng=np.random.default_rng(0))
    assert leaf_key(lift(pure=False), context) is None
    for service in ("progress", "rng", "bare", "score"):
        assert leaf_key(lift(services=(service,)), context) is None
    first = leaf_key(lift(services=("judge",)), context)
    assert first is not None
    assert leaf_key(lift(services=("judge",)), context) == first
    context.models["judge"].version = 4
    assert leaf_key(lift(services=("judge",)), context) not in (None, first)
    assert leaf_key(lift(services=("workers",)), context) is not None
    assert leaf_key(lift(params={"f": len}), context) is None
    heads = [lift(), lift(scope="group"), lift(grain="step"), lift(version="2"), lift(params={"a": 1}), lift(params={"a": 1.0})]
    assert len({leaf_key(leaf, context) for leaf in heads}) == len(heads)
    assert sample_key(b"h", {"meta": {"f": len}}) is None


@reward
def group_noted(group):
    calls.append("+".join(s.text for s in group))
    return [Verdict.fail("x") if s.text == "raise" else float(len(s.text)) for s in group]


def test_a_group_is_kept_as_a_whole(cached, texts):
    cached(group_noted, texts("a", "b", "c", groups=[0, 0, 1]))
    same(
        cached(group_noted, texts("a", "b", "c", groups=[0, 0, 1])),
        Engine().score(group_noted, texts("a", "b", "c", groups=[0, 0, 1])),
    )
    assert calls == ["a+b", "c", "a+b", "c"]  # scored once in the cached engine, once in the bare one
    cached(group_noted, texts("a", "x", "c", groups=[0, 0, 1]))
    assert calls[4:] == ["a+x"]
    for _ in range(2):
        cached(group_noted, texts("raise", "b", groups=[0, 0]))
    assert calls[5:] == ["raise+b", "raise+b"]


def test_the_number_of_a_group_is_no_content():
    def group(n, **more):
        return [Sample(Task("t", "q", "r"), "a", group=n, **more), Sample(Task("t", "q", "r"), "b", group=n)]

    assert group_key(b"", group(3)) == group_key(b"", group(9))
    assert group_key(b"", group(3)) != group_key(b"", group(3)[::-1])
    assert group_key(b"", group(3)) != group_key(b"", group(3, logprobs=np.zeros(1)))
    assert group_key(b"", group(3)) != group_key(b"", group(3, meta={"x": 1}))


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(Refused, match=r"text cannot be used to keep verdicts: file is not a database\. Name another file"):
        Cache(tmp_path / "text")
    with pytest.raises(Refused, match="cannot be used to keep verdicts"):
        Cache(tmp_path)


def test_a_full_disk_breaks_the_run_in_a_sentence_and_loses_nothing(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    few = Engine().score(exact, [Sample(Task("t", "q", "r"), "r")])
    journal.write("0", few)
    journal.table.db.execute("PRAGMA max_page_count=10")

    def fill():
        for i in range(1000):
            journal.write(str(i + 1), few)

    with pytest.raises(Broke, match=r"journal\.sqlite cannot be written: database or disk is full\. What stood there before is kept"):
        fill()
    same(journal.read("0"), few)


# --- the journal ---------------------------------------------------------------------------------------------------------------------


def test_the_journal_gives_back_what_was_scored(tmp_path, texts):
    path = tmp_path / "run" / "journal.sqlite"
    journal = Journal(path)
    engine = Engine(journal=journal)
    first = engine.score(noted + 0.5 * exact, texts("a", "raise", "attack", "none"), key="step 1")
    assert len(calls) == 4
    journal.close()
    again = Engine(journal=Journal(path)).score(noted + 0.5 * exact, texts("a", "raise", "attack", "none"), key="step 1")
    assert len(calls) == 4
    same(first, again)
    assert again.parts["noted"].coefficient == 1.0
    assert again.parts["exact"].coefficient == 0.5
    assert first.hostile.tolist() == again.hostile.tolist() == [False, False, True, False]
    assert Journal(path).read("step 2") is None


def test_a_replay_draws_the_same_numbers(tmp_path, texts):
    @reward(name="test_cache_lucky")
    def lucky(text, rng):
        return rng.random()

    def run():
        engine = Engine(Context(rng=np.random.default_rng(0)), journal=Journal(tmp_path / "j"))
        return [engine.score(lucky, texts("a"), key=k).total()[0] for k in ("1", "2", "3")]

    first = run()
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("DELETE FROM verdicts WHERE key = ?", (b"3",))  # killed before it was written
    assert run() == first
