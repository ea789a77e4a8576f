"""Tasks that belong together are drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.curation.core import select
from guerdon.curation.tasks import _some, epochs
from guerdon.samples import Task


@select
class linked(epochs):
    """Like `epochs`, but tasks of one `meta.link` (a question and its paraphrase) always come together, in the order of the file.

    At least n tasks: as many links as hold them, the last one whole. A task without a link stands alone. State: how many tasks were drawn.
    """

    def __call__(self, tasks: Sequence[Task], n: int, rng: np.random.Generator) -> list[Task]:
        _some(tasks)
        links: dict[str, list[Task]] = {}
        for i, task in enumerate(tasks):
            links.setdefault(f"link {task.meta['link']!r}" if task.meta.get("link") is not None else f"task {i}", []).append(task)
        several = list(links.values())
        drawn: list[Task] = []
        epoch, skip = divmod(self.drawn, len(tasks))
        while len(drawn) < n:
            for i in np.random.default_rng((self.seed, epoch)).permutation(len(several)).tolist():
                if skip > 0:  # drawn before
                    skip -= len(several[i])
                elif len(drawn) < n:
                    drawn.extend(several[i])
            epoch += 1
        return drawn
