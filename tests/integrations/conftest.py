"""Pages whose code needs the host's package: they run here, from top to bottom in one session."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def run_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """run_page("trl") runs docs/how-to/trl.md and returns its names."""

    def run(name: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        page = ROOT / "docs" / "how-to" / f"{name}.md"
        session: dict[str, Any] = {"__name__": f"docs_{name}"}
        code = BLOCK.findall(page.read_text())
        assert code, f"{page} has no code"
        for block in code:
            exec(compile(block, str(page), "exec"), session)
        return session

    return run
