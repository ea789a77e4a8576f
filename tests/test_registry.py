"""Names, nearest names, plug-ins through entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from guerdon import registry
from guerdon.registry import Refused

PLUGIN = """
from guerdon.rewards import reward

@reward
def from_elsewhere(text: str) -> float:
    return float(len(text))
"""


def install(folder: Path, module: str, source: str) -> None:
    """What pip leaves behind for a package with an entry point of the group `guerdon`."""
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[guerdon]\n{module} = {module}\n")


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"], capture_output=True, text=True
    )


def test_an_installed_package_adds_pieces(tmp_path: Path) -> None:
    install(tmp_path, "some_plugin", PLUGIN)
    done = python("from guerdon.rewards import parse; print(parse('2 * from_elsewhere'))", tmp_path)
    assert done.stdout.strip() == "2 * from_elsewhere", done.stderr


def test_a_plugin_that_cannot_be_imported_is_refused_by_name(tmp_path: Path) -> None:
    install(tmp_path, "broken_plugin", "import no_such_thing")
    done = python("from guerdon.registry import Refused, find\ntry: find('reward', 'exact')\nexcept Refused as e: print(e)", tmp_path)
    assert "The plug-in 'broken_plugin'" in done.stdout
    assert "no_such_thing" in done.stdout


def test_two_functions_of_one_name_are_refused_and_one_entered_twice_is_not() -> None:
    def first() -> None: ...

    def second() -> None: ...

    registry.register("env", "twice", first)
    registry.register("env", "twice", first)
    with pytest.raises(Refused, match="already registered"):
        registry.register("env", "twice", second)
    registry._pieces["env"].pop("twice")


def test_an_unknown_name_says_the_nearest() -> None:
    import guerdon.recipe

    assert guerdon.recipe
    with pytest.raises(Refused, match=r"no credit 'grp'; did you mean 'grpo'\?"):
        registry.find("credit", "grp")
    with pytest.raises(Refused, match=r"there are: .*grpo"):
        registry.find("credit", "zzzzzz")
