"""Run by torchrun in two processes that share one group of four: what each rank's loss was given, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from trl import GRPOConfig

import guerdon as g
from guerdon.envs import arithmetic, named_policy
from guerdon.integrations.trl import GuerdonGRPOTrainer, reward_funcs


@g.reward(inline=True)
def letters(text: str) -> float:
    return sum(map(ord, text)) / 1000


@g.reward
def place_in_group(group: list) -> list[float]:
    assert len(group) == 4, f"a group of {len(group)}"
    order = sorted(range(4), key=lambda i: (group[i].text, i))
    return [float(order.index(i)) for i in range(4)]


def main(out: Path) -> None:
    rank = PartialState(cpu=True).process_index
    texts = [["d", "a"], ["c", "b"]][rank]
    found = {"places": reward_funcs(place_in_group)[0](prompts=["p"] * 2, completions=texts, completion_ids=[[]] * 2)}
    found["whole"] = train(out, letters + place_in_group)  # scored on one rank
    found["apart"] = train(out, letters)  # each rank scores its own
    (out / f"rank{rank}.json").write_text(json.dumps(found))


def train(out: Path, reward) -> dict:
    tasks = arithmetic(n=8, steps=[2, 3], low=1, high=9, ops="+-", within=[0, 20])
    data = Dataset.from_list([{"prompt": t.prompt, "reference": t.reference} for t in tasks])
    config = GRPOConfig(
        str(out / "run"), max_steps=1, per_device_train_batch_size=2, num_generations=4, max_completion_length=24, temperature=1.5,
        use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, seed=3,
    )  # fmt: skip
    trainer = GuerdonGRPOTrainer(str(named_policy("tiny")), reward, "dr_grpo", train_dataset=data, args=config)
    given = {}
    loss = trainer._compute_loss

    def keep(model, inputs):
        mask = inputs["completion_mask"].bool()
        given["ids"] = [row[m].tolist() for row, m in zip(inputs["completion_ids"], mask, strict=True)]
        given["advantages"] = [row[m].tolist() for row, m in zip(inputs["advantages"], mask, strict=True)]
        return loss(model, inputs)

    trainer._compute_loss = keep
    trainer.train()
    given["samples"] = [[s.ids.tolist(), s.text, s.group] for s in trainer.scored[0]]
    return given


if __name__ == "__main__":
    main(Path(sys.argv[1]))
