"""What cannot be sampled, refused alike by every backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guerdon.backends.base import SamplingParams
from guerdon.registry import Refused


def check(prefixes: Sequence[np.ndarray], params: SamplingParams, many: int) -> None:
    """Refuse what cannot be sampled. many: how many prefixes are asked for."""
    if params.max_tokens < 1:
        raise Refused(f"max_tokens is {params.max_tokens}; a completion needs at least 1.")
    if params.temperature < 0 or not 0 < params.top_p <= 1 or params.top_k < 0:
        raise Refused(
            f"temperature {params.temperature}, top_p {params.top_p}, top_k {params.top_k} cannot be sampled with; "
            "give temperature >= 0, 0 < top_p <= 1 and top_k >= 0."
        )
    if params.limits and (len(params.limits) != many or min(params.limits) < 1):
        raise Refused(f"`limits` has {len(params.limits)} numbers of tokens for {many} prefixes; give one of 1 or more for each.")
    for i, prefix in enumerate(prefixes):
        if len(prefix) == 0:
            raise Refused(f"Prefix {i} has no tokens; a completion needs at least one token to continue.")
