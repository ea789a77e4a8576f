"""Scoring with a reward model, beside a plain transformers loop: 400 GSM8K answers in groups of four, a head on SmolLM2's first 6 layers.

The loop takes the rows in file order, pads each batch to its longest row, and runs at its fastest batch size of 8, 16, 32 and 64. Ours goes
through `reward_model`: with every row's prompt in front of it (length bucketing and token budgets alone), and with the prompt of a group
computed once. Each side in its own process, in turn, one thread; seconds are of the processor, so that a busy machine does not decide, and
medians over the rounds. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
BATCHES = (8, 16, 32, 64)
ANSWERS = 400


def rows(path: Path, many: int) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()[:many]]


def make(folder: Path) -> None:
    """The first 6 layers of SmolLM2-135M with a head of random weights, as `guerdon fit` writes it."""
    import torch

    from guerdon.backends.local import local
    from guerdon.backends.resolve import load_pretrained
    from guerdon.reward_models import folder as folders

    causal, tokenizer = load_pretrained("smollm2", torch.float32)
    causal.model.layers = causal.model.layers[:6]
    causal.config.num_hidden_layers = 6
    model = local((causal, tokenizer), head="scalar", trainable=False)
    torch.manual_seed(0)
    assert model.head is not None
    model.head.weight.data.normal_(std=0.05)  # pyright: ignore
    folders.pad_token(model)
    card = folders.Card("outcome", "scalar", "{}", False, None, 1.0, 2048, folders.tokenizer_digest(model))
    folders.write(model, card, folder)


def transformers_loop(folder: Path, data: list[dict[str, str]], batch: int) -> tuple[list[float], float]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    started, scores = time.process_time(), []
    with torch.no_grad():
        for at in range(0, len(data), batch):
            texts = [row["prompt"] + "\n" + row["completion"] for row in data[at : at + batch]]
            scores += model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0].tolist()
    return scores, time.process_time() - started


def ours(folder: Path, data: list[dict[str, str]], sharing: bool) -> tuple[list[float], float]:
    from guerdon.backends.local import local
    from guerdon.reward_models import fitted
    from guerdon.reward_models import folder as folders
    from guerdon.samples import Sample, Task

    model, card = local(folder, trainable=False, prefix_sharing=sharing), folders.read(folder)
    started = time.process_time()
    samples = [Sample(Task(str(i), row["prompt"] + "\n"), row["completion"]) for i, row in enumerate(data)]
    scores = [v.value for v in fitted.score(model, card, samples)]  # type: ignore[union-attr]
    return scores, time.process_time() - started  # type: ignore[return-value]


def side(name: str, folder: Path, data: list[dict[str, str]]) -> dict[str, Any]:
    """One measurement, in this process."""
    loop = name.startswith("loop-")
    scores, seconds = transformers_loop(folder, data, int(name[5:])) if loop else ours(folder, data, name == "shared")
    return {"scores": scores, "seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measured(name: str, folder: Path, given: argparse.Namespace, many: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--side", name, "--folder", str(folder), "--data", str(given.data), "--answers", str(many)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    from bars import Bars

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data" / "gsm8k_model_solutions.jsonl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=int, default=ANSWERS)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.side, given.folder, rows(given.data, given.answers))))
        return 0
    bars = Bars("reward_model_scoring", ("torch", "transformers"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        make(folder)
        tries = {batch: measured(f"loop-{batch}", folder, given, given.answers // 4)["seconds"] for batch in BATCHES}
        best = min(tries, key=tries.__getitem__)
        found: dict[str, list[dict[str, Any]]] = {f"loop-{best}": [], "bucketed": [], "shared": []}
        for _ in range(given.rounds):
            for one, results in found.items():
                results.append(measured(one, folder, given, given.answers))
    seconds = {one: statistics.median(r["seconds"] for r in results) for one, results in found.items()}
    peak = {one: statistics.median(r["peak_mb"] for r in results) for one, results in found.items()}
    loop = f"loop-{best}"
    apart = max(abs(a - b) for one in found for a, b in zip(found[one][0]["scores"], found[loop][0]["scores"], strict=True))
    bars.bar("length_bucketing_times_faster", seconds[loop] / seconds["bucketed"], 1.25)
    bars.bar("shared_prompt_times_faster", seconds[loop] / seconds["shared"], 1.6)
    bars.bar("memory_over_the_loop_s", max(peak["bucketed"], peak["shared"]) / peak[loop], 1.0, higher=False)
    bars.bar("scores_apart", apart, 1e-4, higher=False)
    bars.note("fastest_batch_of_the_loop", best)
    bars.note("rounds", given.rounds)
    for one in found:
        bars.note(f"processor_seconds_{one}", seconds[one])
        bars.note(f"peak_mb_{one}", peak[one])
    return bars.close()


if __name__ == "__main__":
    raise SystemExit(main())
