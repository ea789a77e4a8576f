"""The loss contract: (out, batch, **params) -> (sum, metrics).

`out` holds what the loss named in `needs` (`logprobs` always). Every denominator is in `batch.weights` already, so a loss is a plain sum
of weight times term over tokens, its metrics are weighted sums too, and any split of the batch along `unit` adds up to the same.
"""

from __future__ import annotations

from guerdon.registry import registrar

loss = registrar("loss")
"""`@loss` or `@loss(needs=("entropy",))`: outputs of the backend beside `logprobs`; `fields=("logprobs",)`: batch fields it reads."""
