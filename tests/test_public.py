"""The names that `import guerdon` offers: each is there when it is used, and type checkers see the same ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import guerdon


@pytest.mark.parametrize("name", [*guerdon._NAMES, "math", "length", "clip"])
def test_every_name_is_there(name: str) -> None:
    assert callable(getattr(guerdon, name))
    assert name in dir(guerdon)


def test_type_checkers_see_the_lazy_names() -> None:
    tree = ast.parse(Path(str(guerdon.__file__)).read_text())
    seen = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(guerdon._NAMES) <= seen


def test_importing_guerdon_is_light() -> None:
    code = "import guerdon, sys; print(*({'torch', 'transformers', 'scipy', 'sympy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
