"""Samples for the tests of scoring."""

from __future__ import annotations

import pytest

from guerdon.samples import Sample, Task
from guerdon.spans import mark


@pytest.fixture(scope="session")
def texts():
    """texts("a", "b", groups=[0, 0], reference="r") -> marked samples."""

    def make(*several: str, groups=None, reference="r", **meta) -> list[Sample]:
        samples = []
        for text, group in zip(several, groups or range(len(several)), strict=True):
            sample = Sample(Task(f"t{group}", f"q{group}", reference), text, group=group, meta=dict(meta))
            mark(sample)
            samples.append(sample)
        return samples

    return make
