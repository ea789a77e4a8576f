"""Batches that nothing can be trained on, refused with the sample and the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from guerdon.registry import Broke, Refused, find

if TYPE_CHECKING:
    from guerdon.samples import Batch, Rewards, Sample
    from guerdon.training.loop import Gathered
    from guerdon.training.run import Running


def finite(advantages: torch.Tensor, found: Gathered, stage: Running) -> torch.Tensor:
    """The advantages. Raises Broke for one that is NaN or infinite, with the sample that it is of."""
    bad = (~torch.isfinite(advantages)).any(1).nonzero()[:, 0]
    if len(bad):
        i = int(found.rows[int(bad[0])])
        what = f"sample {i} (task {found.samples[i].task.id!r})"
        raise Broke(
            f"The credit {stage.spec.credit and stage.spec.credit.use!r} gave {what} `advantages` that are not finite; nothing was trained."
        )
    return advantages


def refuse_unwritten(samples: list[Sample], rewards: Rewards) -> None:
    """Raises Refused for a sample with a verdict in which the policy, or an expert, wrote no token: nothing of it can be trained."""
    for i in np.flatnonzero(rewards.alive).tolist():
        ids, written = samples[i].ids, samples[i].written
        if ids is not None and not (np.any(written) if written is not None else len(ids)):
            raise Refused(
                f"Sample {i} of the batch (task {samples[i].task.id!r}) has no token in `written`, so nothing of it can be trained; "
                "leave it out with `keep`, or let its reward abstain."
            )


def refuse_unknown(batch: Batch, stage: Running, kept: list[Sample]) -> None:
    """Raises Refused for a row without log-probabilities of its own that a term of the loss with a ratio counts."""
    unknown = (batch.field("logprobs").isnan() & (batch.weights != 0)).any(1)
    for call in stage.losses:
        if "logprobs" in find("loss", call.name).about.get("fields", ()):
            bad = (unknown & (call.rows(batch).weights != 0).any(1)).nonzero()[:, 0].tolist()
            if bad:
                sample = kept[bad[0]]
                raise Refused(
                    f"Sample {bad[0]} of the batch (task {sample.task.id!r}, source {sample.source}) has no `logprobs`, which the loss "
                    f"{call.name!r} divides by; write `of: policy` at that term, and one without a ratio, such as sft, for the others."
                )
