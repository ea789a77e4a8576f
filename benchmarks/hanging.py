"""A mixed reward over many samples of which one in a hundred hangs its grader: every other row is scored, in bounded memory.

The reward is `math + 0.2 * rouge + 0.1 * stumbling`; `stumbling` never returns on one sample in a hundred (by turns an endless loop and a
regular expression that backtracks for ever) and has half a second. Memory is the resident size of this process at its highest: of the
same job without hangs over twice and four times the rows, which must be level, and with hangs, which must add nothing.

Run: python benchmarks/hanging.py [ROWS]     (default 50,000)
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import orjson
from bars import Bars

from guerdon.rewards import reward
from guerdon.scoring.job import score_file

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
EXPRESSION = "math + 0.2 * rouge + 0.1 * stumbling"
DEADLINE = 0.5


@reward(deadline=DEADLINE, wrong=-1.0)
def stumbling(text: str) -> float:
    if text.startswith("loop"):
        while True:
            pass
    if text.startswith("backtrack"):
        return float(re.fullmatch(r"(a+)+b", "a" * 64) is not None)
    return 1.0


def write(path: Path, rows: int, hangs: bool) -> None:
    with open(path, "wb") as file:
        for i in range(rows):
            start = ("loop" if i % 200 else "backtrack") if hangs and i % 100 == 0 else "so"
            text = f"{start} {i} + {i % 7} makes {i + i % 7}, step by step.\nThe answer is {i + i % 7 + (i % 3 == 0)}"
            file.write(orjson.dumps({"prompt": f"{i} + {i % 7}?", "completion": text, "reference": str(i + i % 7)}) + b"\n")


class Memory(threading.Thread):
    """The highest resident size of this process, in MB, seen every 20 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.going = 0.0, True

    def run(self) -> None:
        page = resource.getpagesize() / 2**20
        while self.going:
            self.highest = max(self.highest, int(Path("/proc/self/statm").read_text().split()[1]) * page)
            time.sleep(0.02)


def score(folder: Path, rows: int, hangs: bool) -> tuple[float, float]:
    """Seconds, MB."""
    write(folder / "rows.jsonl", rows, hangs)
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    score_file(folder / "rows.jsonl", EXPRESSION, folder / "scored.jsonl", workers=2)
    seconds = time.perf_counter() - start
    memory.going = False
    memory.join()
    return seconds, memory.highest


def wrong(row: dict, i: int) -> bool:
    """Whether a row has another verdict than it must: a hang is hostile at -1, all others are scored by every part."""
    parts = row["parts"]
    if i % 100 == 0:
        return parts["stumbling"] != -1.0 or "hostile" not in row["reason"] or parts["math"] is None
    return row["state"] != "scored" or parts["stumbling"] != 1.0 or parts["math"] != float(i % 3 != 0) or parts["rouge"] is None


if __name__ == "__main__":
    bars = Bars("hanging", packages=("guerdon", "pebble", "rapidfuzz"))
    with tempfile.TemporaryDirectory() as folder:
        twice, four = (score(Path(folder), times * ROWS, hangs=False)[1] for times in (2, 4))
        seconds, hanging = score(Path(folder), ROWS, hangs=True)
        found = [orjson.loads(line) for line in (Path(folder) / "scored.jsonl").read_bytes().splitlines()]
    bad = [i for i, row in enumerate(found) if wrong(row, i)]
    bars.bar("rows", len(found), ROWS)
    bars.bar("rows_with_another_verdict", len(bad), 0, higher=False)
    bars.bar("memory_of_four_times_the_rows_beside_twice", four / twice, 1.1, higher=False)
    bars.bar("memory_with_hangs_beside_without", hanging / four, 1.1, higher=False)
    bars.note("seconds", seconds)
    bars.note("seconds_of_deadlines", 2 * DEADLINE * (ROWS // 100) / 2)
    bars.note("memory_mb", hanging)
    bars.note("first_bad", found[bad[0]] if bad else None)
    sys.exit(bars.close())
