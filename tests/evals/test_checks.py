"""The check runner: a claim that holds, one that does not, one that proves nothing; resuming; rows of methods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from guerdon.evals import checks, methods, verbs
from guerdon.registry import Broke, Refused

CHECK = """
CLAIM, BASELINE, METHOD, SEEDS = "method > baseline", "zero", "one", (0, 1)
LOG = {log!r}

def measure(variant, seed):
    open(LOG, "a").write(variant + str(seed) + "\\n")
    return {values}[variant]

def holds(baseline, method):
    return all(m > b for b, m in zip(baseline, method))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "checks").mkdir()
    monkeypatch.setenv("GUERDON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GUERDON_CHECKS", str(tmp_path / "checks"))
    return tmp_path / "checks"


def write(folder: Path, name: str, values: dict[str, float]) -> Path:
    log = folder / f"{name}.log"
    (folder / f"{name}.py").write_text(CHECK.format(log=str(log), values=values))
    return log


def test_a_claim_that_holds_only_with_the_key_term(folder: Path) -> None:
    log = write(folder, "good", {"baseline": 0.0, "method": 1.0, "ablated": 0.0})
    found = checks.run("good")
    assert (found.ok, found.verdict) == (True, "holds")
    assert sorted(log.read_text().split()) == ["ablated0", "ablated1", "baseline0", "baseline1", "method0", "method1"]
    assert checks.run("good").method == [1.0, 1.0]
    assert len(log.read_text().split()) == 6  # what was measured is kept
    checks.run("good", fresh=True)
    assert len(log.read_text().split()) == 12


def test_a_claim_that_fails_and_one_that_proves_nothing(folder: Path) -> None:
    write(folder, "bad", {"baseline": 1.0, "method": 1.0, "ablated": 0.0})
    assert checks.run("bad").verdict == "does not hold"
    write(folder, "empty", {"baseline": 0.0, "method": 1.0, "ablated": 2.0})
    assert checks.run("empty").verdict.startswith("proves nothing")


def test_checks_share_files_that_begin_with_an_underscore(folder: Path) -> None:
    log = write(folder, "shares", {"baseline": 0.0, "method": 1.0, "ablated": 0.0})
    check = folder / "shares.py"
    check.write_text(f"from _shared_by_checks import WORTH\n{check.read_text()}".replace("return ", "return WORTH * ", 1))
    for worth, measured in ((1.0, 6), (2.0, 12)):
        (folder / "_shared_by_checks.py").write_text(f"WORTH = {worth}\n")
        assert checks.run("shares").method == [worth, worth]
        assert len(log.read_text().split()) == measured  # another text of the shared file starts anew
    assert list(checks.available()) == ["shares"]


def test_a_measurement_that_breaks_is_named(folder: Path) -> None:
    write(folder, "broken", {"baseline": 0.0})
    with pytest.raises(Broke, match="broke off in method, seed 0: KeyError"):
        checks.run("broken")
    with pytest.raises(Refused, match="did you mean 'broken'"):
        checks.run("brokn")


SIDE_BY_SIDE = """
from guerdon.evals import checks, methods

with_rows = {row.check for row in methods.methods().values()}
names = list(checks.available())
assert names
for name in names:
    module = checks.load(name)
    assert module.CLAIM, name
    assert module.SEEDS, name
    assert callable(module.measure), name
    assert callable(module.holds), name
    long = getattr(module, "LONG", False)  # the flag that keeps a comparison out of --all, nothing else
    assert long is True or f"checks/{name.replace('-', '_')}.py" in with_rows, name
    assert long in (False, True), name
"""


def test_all_checks_can_be_loaded_side_by_side() -> None:
    """In a process of their own: what the tests of other rooms have registered here is none of their neighbours."""
    done = subprocess.run([sys.executable, "-c", SIDE_BY_SIDE], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_row_names_functions_that_are_there_and_paths_that_exist() -> None:
    rows = methods.methods()
    assert rows
    root = Path(__file__).parents[2]
    for row in rows.values():
        for function in row.functions:
            assert callable(methods.resolve(function)), function
        for path in filter(None, (row.check, row.recipe)):
            assert (root / path).is_file(), path


COMPARISON = """
LONG, CLAIM, SEEDS, VARIANTS = True, "b is the greatest", (0, 1), ("a", "b", "c")

def measure(variant, seed):
    return VARIANTS.index(variant) % 2 + seed

def holds(found):
    return max(found, key=lambda name: sum(found[name])) == "b"

def report(found, folder):
    (folder / "picture.png").write_bytes(b"x")
    return "\\n".join(f"{name} {values}" for name, values in found.items())
"""


def test_a_comparison_over_many_methods(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "several.py").write_text(COMPARISON)
    found = checks.run("several")
    assert isinstance(found, checks.Comparison)
    assert (found.ok, found.found) == (True, {"a": [0, 1], "b": [1, 2], "c": [0, 1]})
    assert found.table == "a [0, 1]\nb [1, 2]\nc [0, 1]"
    assert (found.folder / "picture.png").is_file()
    assert verbs.check("several", False, False) == 0
    write(folder, "bad", {"baseline": 1.0, "method": 1.0, "ablated": 0.0})
    (folder / "several.py").write_text(COMPARISON.replace("def measure", "def unmeasured"))
    assert verbs.check(None, True, False) == 1  # the comparison, which would break off, stands outside --all
