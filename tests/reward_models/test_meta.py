"""The meta step by hand on two parameters."""

from __future__ import annotations

import torch

from guerdon.reward_models.meta import meta_step


def test_the_gradient_is_that_of_the_moved_parameters_and_the_step_starts_at_the_old_ones():
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([theta, unused], lr=0.1)
    values = meta_step([theta, unused], lambda: -(theta[0] ** 2) / 2, lambda: (theta**3).sum() / 3, optimizer, eta=0.5)
    # theta' = (1 + 0.5 * 1, -2); gradient there (2.25, 4); theta - 0.1 * gradient
    torch.testing.assert_close(theta.detach(), torch.tensor([1 - 0.225, -2 - 0.4], dtype=torch.float64))
    assert values == (-0.5, (1.5**3 - 8) / 3)
    assert float(unused.detach()) == 1
