"""The audit cards in the docs: each reward that ships has one, or a reason why not; each says the command that made it."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import guerdon.rewards
import guerdon.shaping  # noqa: F401  fills the registry
from guerdon.evals.audit import read
from guerdon.registry import pieces
from guerdon.rewards.parse import parse
from guerdon.scoring.engine import leaves

ROOT = Path(__file__).resolve().parents[2]
AUDITS = ROOT / "docs/reference/audits"

spec = importlib.util.spec_from_file_location("audits_make", AUDITS / "make.py")
assert spec is not None
assert spec.loader is not None
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def shipped() -> set[str]:
    """Rewards of the package itself, not those of tests, plug-ins and of models that learn."""
    return {p.name for p in pieces("reward") if p.fn.__module__.startswith("guerdon.rewards.")}


def test_every_reward_that_ships_has_a_card_or_a_reason() -> None:
    carded = {leaf.name for reward, _, _ in make.CARDS.values() for leaf in leaves(parse(reward))}
    excused = {name for names in make.WITHOUT.values() for name in names}
    missing = shipped() - carded - excused
    assert not missing, f"give {sorted(missing)} a card in docs/reference/audits/make.py, or a reason in WITHOUT"
    assert excused <= shipped(), "a reason for what does not exist"
    assert not carded & excused


@pytest.mark.parametrize("name", make.CARDS)
def test_a_card_says_its_command_and_holds_no_machine(name: str) -> None:
    text = (AUDITS / f"{name}.md").read_text(encoding="utf-8")
    command = shlex.join(["guerdon", *make.command(name)])
    assert set(shlex.split(command)) == set(shlex.split(re.findall(r"(?m)^    (guerdon audit .*)$", text)[0])), "make it anew"
    assert (ROOT / f"{make.TASKS}/{make.CARDS[name][1]}.jsonl").is_file()
    assert str(ROOT) not in text
    assert not re.search(r"/(?:home|root|work|Users)/|/tmp/(?!a\.txt)", text)
    assert not re.search(r"(?m)^\| cost", text)
    assert "| must not pay |" in text
    assert "Not tested: " in text


@pytest.mark.parametrize("path", sorted((AUDITS / "tasks").glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_task_file_can_be_read_and_is_used(path: Path) -> None:
    tasks, _ = read(path)
    assert 20 <= len(tasks) <= 60
    assert path.stem in {tasks for _, tasks, _ in make.CARDS.values()}


def test_the_table_is_that_of_the_cards() -> None:
    assert (AUDITS / "README.md").read_text(encoding="utf-8") == make.table()
