"""Adam with a bound on each learner's gradient, as `optax.chain(clip_by_global_norm, adam)`.

**Source**: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, by torch.optim.Adam. Axes: P learners.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import optax
import torch
from torch import Tensor, nn

from algos.torch.networks import flax_values, to_flax


class Adam:
    """Steps all learners' parameters, leaves [P, ...], each learner with its own gradient norm."""

    def __init__(self, net: nn.Module, learning_rate: float, max_grad_norm: float, eps: float):
        """Fresh state: no step taken."""
        self._named, self._max_norm = dict(net.named_parameters()), max_grad_norm
        self._adam = torch.optim.Adam(net.parameters(), learning_rate, eps=eps)
        zeros = {name: torch.zeros_like(p) for name, p in self._named.items()}
        self._set(0, zeros, {name: x.clone() for name, x in zeros.items()})

    @torch.no_grad()
    def step(self) -> Tensor:
        """One step along the gradients that `backward` left, which are cleared.

        Returns:
            [P] norm of each learner's gradient before it was bounded.
        """
        grads = [p.grad for p in self._named.values() if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        factor = torch.where(norm < self._max_norm, 1.0, self._max_norm / norm)
        for grad in grads:
            grad.mul_(factor.view(-1, *(1,) * (grad.dim() - 1)))
        self._adam.step()
        self._adam.zero_grad()
        return norm

    def load(self, state: Any) -> None:
        """Take over optax's state of the same optimiser, leaves [P, ...]."""
        inner = state[1][0]
        count = int(np.asarray(inner.count).reshape(-1)[0])
        self._set(count, flax_values(self._named, inner.mu), flax_values(self._named, inner.nu))

    def state(self) -> Any:
        """Optax's state of the same optimiser: numpy leaves [P, ...]."""
        moment = lambda key: to_flax({n: self._adam.state[p][key] for n, p in self._named.items()})
        first = next(iter(self._named.values()))
        count = np.full(first.shape[0], int(self._adam.state[first]["step"]), np.int32)
        inner = optax.ScaleByAdamState(count=count, mu=moment("exp_avg"), nu=moment("exp_avg_sq"))
        return (optax.EmptyState(), (inner, optax.EmptyState()))

    def _set(self, count: int, mean: dict[str, Tensor], square: dict[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            self._adam.state[parameter] = {
                "step": torch.tensor(float(count)),
                "exp_avg": mean[name],
                "exp_avg_sq": square[name],
            }
