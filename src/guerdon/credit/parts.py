"""Credit over the parts of a reward, each with a critic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from guerdon.credit.core import centre_, credit
from guerdon.credit.gae import gae
from guerdon.registry import Refused, nearest

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from guerdon.samples import Batch, Part


def part_of(parts: Mapping[str, Part], name: str) -> Part:
    """The part of a reward called NAME, `length` for `length(target=100)`. Raises Refused where none or several are called so."""
    found = [part for key, part in parts.items() if key == name] or [part for key, part in parts.items() if key.split("(")[0] == name]
    if len(found) != 1:
        raise Refused(f"The critic of {name!r} needs one part of the reward that is called so{nearest(name, parts)}")
    return found[0]


def factor_of(parts: Mapping[str, Part], name: str) -> float:
    """The factor with which a part enters the reward. Raises Refused for a part that does not enter as a sum."""
    factor = part_of(parts, name).coefficient
    if factor is None:
        raise Refused(f"constrained: the part {name!r} enters the reward through more than a factor; write `{name} | multiplier(...)`.")
    return factor


def critic_view(batch: Batch, field: str) -> Batch:
    """The batch as the critic of a field sees it: for `values` itself, for `values/NAME` with the rewards of that part alone."""
    if field == "values":
        return batch
    rewards = part_of(batch.rewards.parts, field.removeprefix("values/")).rewards
    return replace(batch, rewards=rewards, fields={**batch.fields, "values": batch.field(field)})


@credit(needs=("values/*",), grains=("outcome", "step", "token"))
def constrained(batch: Batch, gamma: float = 1.0, lam: float = 0.95) -> Float[Tensor, "n t"]:
    """(N - sum of m_i) A_kl + sum of m_i A_i over the N parts with a critic `values/NAME`, the KL penalty's apart.

    A_i is GAE of part i under its own critic, whitened (mean 0, standard deviation 1) over the living tokens that the policy wrote; m_i
    is the factor with which the part enters the reward, which `| multiplier(threshold)` moves. Without a critic `kl` there is no
    A_kl. Raises Refused for a part that does not enter as a sum. Source: arXiv:2310.04373, its released code, which whitens minibatches.
    """
    names = sorted(name.removeprefix("values/") for name in batch.fields if name.startswith("values/"))
    factors = {name: factor_of(batch.rewards.parts, name) for name in names if name != "kl"}
    free = len(factors) - sum(factors.values())
    out = batch.advantages.new_zeros(batch.ids.shape)
    for name in names:
        view = critic_view(batch, f"values/{name}")
        live = batch.mask & (batch.alive & view.alive)[:, None]
        out = out + (free if name == "kl" else factors[name]) * _white(gae(view, gamma, lam), live)
    return out


def _white(x: Float[Tensor, "n t"], live: Bool[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    centre, count = centre_(x, live)
    return centre.div_(torch.linalg.vector_norm(centre) / max(count, 1) ** 0.5 + 1e-8)
