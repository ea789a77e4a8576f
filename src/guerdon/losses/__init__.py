"""What the backend minimises: (out, batch, **params) -> (sum, metrics)."""

from guerdon.losses import policy as policy
