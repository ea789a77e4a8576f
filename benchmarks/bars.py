"""What every benchmark prints and keeps: `bar NAME VALUE TARGET ok|short`, and results/NAME.json with the machine's description."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


class Bars:
    """Collects bars and notes; `close` writes the JSON and returns the exit code: 1 when a bar is short."""

    def __init__(self, name: str, packages: tuple[str, ...] = ()) -> None:
        """packages: whose versions belong to the result."""
        self.name, self.packages = name, packages
        self.bars: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}

    def bar(self, name: str, value: float, target: float, higher: bool = True) -> bool:
        """One line; ok when value >= target, or <= where lower is better."""
        ok = value >= target if higher else value <= target
        self.bars.append({"name": name, "value": value, "target": target, "better": "higher" if higher else "lower", "ok": bool(ok)})
        print(f"bar {name} {value:.6g} {target:g} {'ok' if ok else 'short'}", flush=True)
        return bool(ok)

    def note(self, key: str, value: Any) -> None:
        """A measured number beside the bars, printed and kept."""
        self.notes[key] = value
        print(f"    {key}: {f'{value:.6g}' if isinstance(value, float) else value}", flush=True)

    def close(self) -> int:
        RESULTS.mkdir(exist_ok=True)
        result = {"name": self.name, "time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(self.packages)}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(result | {"bars": self.bars, "notes": self.notes}, indent=2) + "\n")
        return int(not all(bar["ok"] for bar in self.bars))


def machine(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Processor, cores this process may use, memory in GB, Python, versions, and the load average that says how quiet it was."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": versions,
        "load": [round(x, 2) for x in os.getloadavg()],
    }
