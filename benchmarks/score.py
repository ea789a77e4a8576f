"""`guerdon score` as a whole, and the reward cache.

    score        rows a second of `guerdon score FILE --reward math`: reading, cold cache, two cores, writing; beside it the whole process
    large        the same over a file 20 times as long, where start-up is amortised
    cache hit    microseconds a sample, the key of a 2 kB sample included: many samples at a time, and one

Run: python benchmarks/score.py [FILE]     (default: the GSM8K model solutions beside the project)
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bars import Bars

from guerdon.rewards import reward
from guerdon.samples import Sample, Task
from guerdon.scoring import Cache, Engine
from guerdon.scoring.cache import leaf_key, sample_key

DATA = Path(__file__).parents[2] / "shared" / "data" / "gsm8k_model_solutions.jsonl"
TIMES = 5
INSIDE = """
import sys, time
started = time.perf_counter()
sys.argv[0] = "guerdon"
from guerdon.cli import main
try:
    main()
finally:
    print("SECONDS", time.perf_counter() - started)
"""


def one(file: Path, folder: str) -> tuple[float, float, float, float]:
    """Seconds of one run: of the job alone (as it says itself), from interpreter start on, of the process, and of processors in all."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", INSIDE, "score", str(file), "--reward", "math", "--out", f"{folder}/scored.jsonl", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - started
    said = done.stdout.split()
    job = float(said[said.index("in") + 1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return job, float(said[said.index("SECONDS") + 1]), whole, cpu


def score(bars: Bars, file: Path) -> None:
    rows = file.read_bytes().count(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        runs = [one(file, folder) for _ in range(TIMES)]
        job, inside, whole, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        bars.bar("score_rows_per_second", rows / inside, 5000)
        bars.note("seconds_after_interpreter_start", inside)
        bars.note("seconds_of_the_job", job)
        bars.note("rows_per_second_of_the_job", rows / job)
        bars.note("seconds_of_the_process", whole)
        bars.note("rows_per_second_of_the_process", rows / whole)
        bars.note("cpu_seconds_of_the_process", cpu)
        large = Path(folder) / "large.jsonl"
        text = file.read_bytes()
        large.write_bytes(b"".join([text if text.endswith(b"\n") else text + b"\n"] * 20))
        bars.note("large_rows_per_second_of_the_process", 20 * rows / one(large, folder)[2])


@reward(inline=True, name="benchmarked")
def cheap(text: str, reference: str) -> float:
    return 1.0


def cache_hit(bars: Bars) -> None:
    n = 20_000
    samples = [Sample(Task(str(i), "q", str(i)), f"{i:06d}" + "x" * 1994) for i in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(f"{folder}/cache.sqlite")
        engine = Engine(cache=cache)
        engine.score(cheap, samples)
        head = leaf_key(cheap, engine.context)
        assert head is not None
        fields = [{"text": s.text, "reference": s.task.reference} for s in samples]
        keys = [sample_key(head, f) for f in fields]
        assert len(cache.get(keys)) == n, "every sample is a hit"

        def batch() -> None:
            cache.get([sample_key(head, f) for f in fields])

        def single() -> None:
            for f in fields[:5000]:
                cache.get([sample_key(head, f)])

        bars.bar("cache_hit_batch_us", 1e6 * seconds(batch) / n, 20, higher=False)
        bars.bar("cache_hit_single_us", 1e6 * seconds(single) / 5000, 20, higher=False)
        bars.note("key_us", 1e6 * seconds(lambda: [sample_key(head, f) for f in fields]) / n)
        bars.note("engine_hit_us_with_verdicts_and_rewards", 1e6 * seconds(lambda: engine.score(cheap, samples)) / n)


def seconds(call: Callable[[], object]) -> float:
    """The median of five runs."""
    times = []
    for _ in range(TIMES):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    bars = Bars("score", packages=("guerdon", "math-verify", "orjson"))
    score(bars, Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    cache_hit(bars)
    sys.exit(bars.close())
