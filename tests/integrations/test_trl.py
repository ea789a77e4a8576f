from __future__ import annotations

import pytest

pytest.importorskip("trl", reason="trl lives in the environment of `make test-integrations`")


def test_the_page_runs(run_page):
    page = run_page("trl")
    assert len(page["seen"]) == 2
