"""The variants on which the benchmark of the audit measures graders: the same for a seed, and as right or wrong as their case says."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "benchmarks/audit_variants.py"


@pytest.fixture(scope="module")
def made() -> Any:
    spec = importlib.util.spec_from_file_location("audit_variants", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_family_gives_what_its_case_says(made: Any) -> None:
    assert len(made.FAMILIES) == 87
    for case in made.FAMILIES:
        found = made.variants(case, n=4, seed=3)
        assert len(found) == 4
        assert {v.expect for v in found} == {case.startswith(("eq.", "fmt."))}
        assert len({(v.reference, v.completion) for v in found}) == 4, case


def test_the_same_for_a_seed_and_others_for_another(made: Any) -> None:
    assert made.variants("eq.int.plain") == made.variants("eq.int.plain")
    assert made.variants("eq.int.plain") != made.variants("eq.int.plain", seed=1)


def test_a_family_that_slips_is_an_error(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(made.EQUAL, "eq.int.plain", lambda rng: ("42", "43"))
    with pytest.raises(ValueError, match="'42' and '43' are different"):
        made.variants("eq.int.plain")
    monkeypatch.setitem(made.DIFFERENT, "ne.sign", lambda rng: ("42", "+42"))
    with pytest.raises(ValueError, match="are equal"):
        made.variants("ne.sign")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1,000", 1000), ("042", 42), ("1E-3", Fraction(1, 1000)), ("− 5", -5), ("-0.0", 0), ("\\frac{10}{4}", Fraction(5, 2)),
        ("5 1/4", Fraction(21, 4)), ("$7$", 7), ("\\boxed{12}", 12), ("(5)", 5), ("x = 5", 5), ("42.", 42), (".50", Fraction(1, 2)),
    ],
)  # fmt: skip
def test_written_numbers(made: Any, written: str, number: int | Fraction) -> None:
    found = made.value(written)
    assert (int(found.p), int(found.q)) == (Fraction(number).numerator, Fraction(number).denominator)


def test_other_written_values(made: Any) -> None:
    assert made.equal("2*sqrt(3)", "2\\sqrt{3}")
    assert made.equal("\\frac{\\pi}{3}", "π/3")
    assert not made.equal("2\\pi", "3π")
    assert made.equal("(1,2)", "(1, 2)")
    assert not made.equal("(1,2)", "(2, 1)")
    assert made.equal("{1,2}", "{2,1}")
    assert made.equal("the limit", "limit")
    assert made.equal("1/3", "0.3333333333")
    assert not made.equal("1/3", "0.333333334")
    assert made.equal("5", "5 meters")
    assert not made.equal("5 meters", "5 feet")
