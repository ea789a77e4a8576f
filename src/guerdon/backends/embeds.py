"""The capability `embeds`: a further pass, with gradient, on input embeddings that the loss supplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from guerdon.backends.base import Usage
from guerdon.backends.prefix import Prompts
from guerdon.backends.softmax import token_logprobs

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from guerdon.samples import Batch


class Embeds:
    """What a loss that needs `embeds` finds in `out["embeds"]`: of one micro-batch, valid while the loss is worked out."""

    def __init__(self, causal: Any, project: Callable[[Tensor], Tensor], vocabulary: int, temperature: float, batch: Batch) -> None:
        self.causal, self.project, self.vocabulary = causal, project, vocabulary
        self.temperature, self.batch = temperature or 1.0, batch
        self.usage = Usage()

    def embed(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
        """Rows of the model's input embedding table, with gradient into it."""
        return self.causal.get_input_embeddings()(ids)

    def logprobs(self, inputs: Float[Tensor, "n t d"]) -> Float[Tensor, "n t"]:
        """Log-probabilities of `batch.ids` after the prompt and `inputs` in the place of the tokens before each; 0 wherever the mask is
        False.

        Every row's prompt is computed in front of it.
        """
        batch = self.batch
        t = batch.ids.shape[1]
        prompts = Prompts.of(batch.prompts, inputs.device)
        whole = torch.cat([self.embed(prompts.ids[prompts.owner]).to(inputs.dtype), inputs[:, :-1]], 1)
        mask = torch.cat([prompts.mask[prompts.owner], torch.ones((len(batch), t - 1), dtype=torch.bool, device=inputs.device)], 1)
        states = self.causal.base_model(
            inputs_embeds=whole,
            attention_mask=mask if prompts.padded else None,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, -t:]
        given = int(prompts.lengths[prompts.owner].sum())
        self.usage = self.usage + Usage(prompt=given, new=int(batch.lengths.sum()))
        logprobs, _ = token_logprobs(states[batch.mask], self.project, batch.ids[batch.mask], self.vocabulary, self.temperature)
        return logprobs.new_zeros(batch.ids.shape).index_put((batch.mask,), logprobs)
