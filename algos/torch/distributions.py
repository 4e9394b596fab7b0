"""Action distributions, the PyTorch twin of `marl.distributions`.

Random numbers come from a torch.Generator. Masked actions get the lowest finite logit.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from marl.distributions import LOG_STD_RANGE


@dataclasses.dataclass
class Categorical:
    """One choice among N; `logits` [..., N]."""

    logits: Tensor

    @functools.cached_property
    def log_pi(self) -> Tensor:
        """[..., N] log-probabilities of all choices."""
        return self.logits.log_softmax(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """[...] int64, by inversion: one uniform number a choice."""
        cdf = self.log_pi.exp().cumsum(-1)
        u = torch.rand(cdf.shape[:-1], generator=generator, device=cdf.device) * cdf[..., -1]
        # a sum that rounds up to its total must not choose the action behind the last
        return (cdf[..., :-1] <= u[..., None]).sum(-1)

    def mode(self) -> Tensor:
        """[...] int64, the likeliest choice."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] log-probability of `action` [...]."""
        return self.log_pi.gather(-1, action[..., None].long())[..., 0]

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return -(self.log_pi.exp() * self.log_pi).sum(-1)


@dataclasses.dataclass
class MultiCategorical:
    """Several independent choices; `parts` are Categoricals, one a component."""

    parts: list[Categorical]

    def sample(self, generator: torch.Generator) -> Tensor:
        """[..., M] int64."""
        return torch.stack([p.sample(generator) for p in self.parts], -1)

    def mode(self) -> Tensor:
        """[..., M] int64."""
        return torch.stack([p.mode() for p in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] joint log-probability of `action` [..., M]."""
        return torch.stack([p.log_prob(action[..., i]) for i, p in enumerate(self.parts)]).sum(0)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return torch.stack([p.entropy() for p in self.parts]).sum(0)


@dataclasses.dataclass
class Gaussian:
    """Independent normals; a component whose mask is False adds nothing to the density."""

    mean: Tensor  # [..., *shape] in the units of the space
    log_std: Tensor  # [..., *shape]
    mask: Tensor  # [..., *shape] bool
    num_axes: int  # length of `shape`

    def sample(self, generator: torch.Generator) -> Tensor:
        """[..., *shape] float32; may lie outside the bounds (the games clip what is played)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """[..., *shape] the mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] log-density of `action` [..., *shape]."""
        z = (action - self.mean) * (-self.log_std).exp()
        return self._sum(-0.5 * (z**2 + math.log(2 * math.pi)) - self.log_std)

    def entropy(self) -> Tensor:
        """[...] differential entropy in nats."""
        return self._sum(0.5 * math.log(2 * math.pi * math.e) + self.log_std)

    def _sum(self, x: Tensor) -> Tensor:
        x = torch.where(self.mask, x, 0.0)
        return x.flatten(-self.num_axes).sum(-1) if self.num_axes else x


Distribution = Categorical | MultiCategorical | Gaussian


def distribution(space: spaces.Space, params: Tensor, mask: Tensor | None) -> Distribution:
    """The distribution that a network's output describes.

    Args:
        space: one seat's action space.
        params: [..., num_params(space)], as in `marl.distributions`.
        mask: [..., N] bool, True where allowed; None: everywhere.
    """
    if isinstance(space, spaces.Box):
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
        centre, half = (params.new_tensor(x) for x in ((low + high) / 2, (high - low) / 2))
        mean, log_std = params.chunk(2, -1)
        shape = (*params.shape[:-1], *space.shape)
        log_std = log_std.clamp(*LOG_STD_RANGE).reshape(shape) + half.log()
        mean = centre + half * mean.reshape(shape)
        mask = torch.ones_like(mean, dtype=torch.bool) if mask is None else mask.reshape(shape)
        return Gaussian(mean, log_std, mask, len(space.shape))
    logits = params if mask is None else params.masked_fill(~mask, torch.finfo(params.dtype).min)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical([Categorical(part) for part in logits.split(space.nvec.tolist(), -1)])
    return Categorical(logits)
