"""A method's claim as a command that can fail.

A check is a Python file with
    CLAIM, BASELINE, METHOD    sentences: what must hold, and what is compared
    SEEDS                      a tuple of seeds
    measure(variant, seed)     -> number, or dict of numbers with `value` among them, for variant "baseline", "method" or "ablated"
    holds(baseline, method)    -> bool, of two lists of what `measure` returned
"ablated" is the method without its key term: the claim must fail for it, or the check proves nothing. Each measurement is a process of its
own, two at a time, and is kept, so that a check that was stopped goes on where it was.

A comparison over many methods has LONG = True, stands outside `--all`, and in the place of BASELINE and METHOD
    VARIANTS                   the names of what is compared
    holds(found)               -> bool, found: variant -> what `measure` returned, a seed each
    report(found, folder)      -> the table, as text, after its pictures are written into the folder
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from guerdon.envs.tiny import cache_folder
from guerdon.registry import Broke, Refused, nearest

VARIANTS = ("baseline", "method", "ablated")


@dataclass
class Comparison:
    """What a comparison over many methods found. `table` is for reading; its pictures stand in `folder`."""

    name: str
    claim: str
    found: dict[str, list[Any]]
    seeds: list[int]
    ok: bool
    seconds: float
    table: str
    folder: Path

    @property
    def verdict(self) -> str:
        return "holds" if self.ok else "does not hold"


@dataclass
class Finding:
    """What a check found. `holds`: the claim holds for the method and fails without its key term."""

    name: str
    claim: str
    baseline: list[Any]
    method: list[Any]
    ablated: list[Any]
    seeds: list[int]
    holds: bool
    fails_without: bool
    seconds: float

    @property
    def verdict(self) -> str:
        if not self.holds:
            return "does not hold"
        return "holds" if self.fails_without else "proves nothing: the claim holds without the method's key term too"

    @property
    def ok(self) -> bool:
        return self.holds and self.fails_without


def folder() -> Path:
    """`checks/` of the source tree, or the folder that GUERDON_CHECKS names."""
    here = Path(os.environ.get("GUERDON_CHECKS", Path(__file__).resolve().parents[3] / "checks"))
    if not here.is_dir():
        raise Refused("The checks stand in the source tree, not in an installed package; run `guerdon check` from a clone (`make setup`).")
    return here


def available() -> dict[str, Path]:
    return {path.stem.replace("_", "-"): path for path in sorted(folder().glob("*.py")) if not path.stem.startswith("_")}


def load(name: str) -> ModuleType:
    found = available()
    key = name.replace("_", "-")
    if key not in found:
        raise Refused(f"There is no check {name!r}{nearest(key, found)}")
    if str(folder()) not in sys.path:
        sys.path.append(str(folder()))  # what several checks share stands in files that begin with _
    spec = importlib.util.spec_from_file_location(f"check_{found[key].stem}", found[key])
    if spec is None or spec.loader is None:
        raise Refused(f"{found[key]} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, jobs: int = 2, fresh: bool = False, tick: Callable[[int, int], None] | None = None) -> Finding | Comparison:
    """Run a check, or what is left of it. tick(done, all) is called after each measurement. Raises Broke where one fails."""
    module, path = load(name), available()[name.replace("_", "-")]
    kept = Kept(path, fresh)
    variants = getattr(module, "VARIANTS", VARIANTS)
    todo = [(variant, seed) for seed in module.SEEDS for variant in variants if (variant, seed) not in kept]
    total = len(variants) * len(module.SEEDS)
    start = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        for done, (variant, seed, value) in enumerate(pool.map(lambda job: (*job, _measure(name, *job)), todo), total - len(todo) + 1):
            kept.add(variant, seed, value, (time.perf_counter() - start))
            if tick:
                tick(done, total)
    if variants is not VARIANTS:
        found = {variant: [kept[variant, seed] for seed in module.SEEDS] for variant in variants}
        pictures = Path("runs") / "checks" / path.stem
        pictures.mkdir(parents=True, exist_ok=True)
        table, ok = module.report(found, pictures), bool(module.holds(found))
        return Comparison(name, module.CLAIM, found, list(module.SEEDS), ok, kept.seconds, table, pictures)
    baseline, method, ablated = ([kept[variant, seed] for seed in module.SEEDS] for variant in VARIANTS)
    return Finding(
        name, module.CLAIM, baseline, method, ablated, list(module.SEEDS),
        bool(module.holds(baseline, method)), not module.holds(baseline, ablated), kept.seconds,
    )  # fmt: skip


def _measure(name: str, variant: str, seed: int) -> Any:
    """In a process of its own, with one torch thread."""
    done = subprocess.run(
        [sys.executable, "-m", "guerdon.evals.checks", name, variant, str(seed)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Broke(f"The check {name} broke off in {variant}, seed {seed}: {why}")
    return json.loads(done.stdout.splitlines()[-1])


class Kept:
    """Measurements that are done, in the run cache; another text of the check or another version of the sources starts anew."""

    def __init__(self, path: Path, fresh: bool) -> None:
        sources = sorted((Path(__file__).parents[1]).rglob("*.py"))
        digest = hashlib.blake2b(
            b"".join(p.read_bytes() for p in [path, *sorted(path.parent.glob("_*.py")), *sources]), digest_size=8
        ).hexdigest()
        self.file = cache_folder() / "checks" / f"{path.stem}-{digest}.json"
        self.values: dict[str, Any] = {}
        if self.file.is_file() and not fresh:
            self.values = json.loads(self.file.read_text())

    def __contains__(self, job: tuple[str, int]) -> bool:
        return f"{job[0]}/{job[1]}" in self.values

    def __getitem__(self, job: tuple[str, int]) -> Any:
        return self.values[f"{job[0]}/{job[1]}"]["value"]

    @property
    def seconds(self) -> float:
        return max((entry["seconds"] for entry in self.values.values()), default=0.0)

    def add(self, variant: str, seed: int, value: Any, seconds: float) -> None:
        self.values[f"{variant}/{seed}"] = {"value": value, "seconds": seconds}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.values))


if __name__ == "__main__":
    _name, _variant, _seed = sys.argv[1:]
    print(json.dumps(load(_name).measure(_variant, int(_seed))))
