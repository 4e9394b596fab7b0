"""Proximal policy optimisation in PyTorch: the twin of `algos.ppo`, with the same configuration.

**Source**: as `algos.ppo`. Deviations from it: no credit, no groups of games; random numbers, and so
the order of minibatches, are PyTorch's. All P learners compute in one batched product (see
`algos.torch.networks`), so more learners cost no more Python. Axes: P learners, T steps, E games,
A seats, B = E*K with K seats a learner.
"""

from __future__ import annotations

from typing import Any

import jax
import torch
from omegaconf import DictConfig
from torch import Tensor

from algos import ppo
from algos.torch.distributions import Distribution, distribution
from algos.torch.networks import ActorCritic, load_flax, to_flax
from algos.torch.optim import Adam
from algos.torch.rollout import to_learners, to_seats
from marl.algorithm import Batch
from marl.config import construct
from marl.distributions import num_params
from marl.environment import Environment, TimeStep
from marl.population import Seats, num_learners


class PPO:
    """Clipped policy gradient with a learned value baseline.

    Fields: rule, the `algos.ppo.PPO` whose hyper-parameters count; net, an ActorCritic of all
    learners; optimizer.
    """

    def __init__(self, rule: ppo.PPO, env: Environment, device: torch.device | str = "cpu"):
        """Fresh learners for one game; initial weights follow torch.manual_seed.

        Raises:
            ValueError: naming a key that PyTorch has no twin of.
        """
        if rule.credit is not None:
            raise ValueError("algo.credit: backend=torch has no credits; use null, or backend=jax")
        if rule.critic_learning_rate is not None:
            raise ValueError("algo.critic_learning_rate: backend=torch has one step size; use null")
        if rule.group_size > 1:
            raise ValueError("algo.group_size: backend=torch has no groups of games; use 1, or backend=jax")
        if rule.value_clip_eps is not None:
            raise ValueError("algo.value_clip_eps: backend=torch clips no values; use null, or backend=jax")
        if rule.final_learning_share is not None:
            raise ValueError("algo.final_learning_share: backend=torch has one step size; use null")
        if rule.final_ent_coef is not None:
            raise ValueError("algo.final_ent_coef: backend=torch has one weight of the bonus; use null")
        self.rule, self.env, self.num_steps = rule, env, rule.num_steps
        num = num_learners(rule.seats)
        size = num_params(env.action_space)
        self.net = ActorCritic(rule.network, env, num, size, rule.separate_critic).to(device)
        bounds = (float(rule.learning_rate), float(rule.max_grad_norm))
        self.optimizer = Adam(self.net, *bounds, eps=1e-5)

    @classmethod
    def from_config(
        cls, node: DictConfig, env: Environment, seats: Seats, device: torch.device | str = "cpu"
    ) -> PPO:
        """From the configuration's `algo`; `seats` [A] is the learner of each seat."""
        return cls(construct(node, seats=tuple(seats)), env, device)

    def initial_carry(self, num_envs: int) -> Any:
        """[E, A, H] zeros, or () for feed-forward networks."""
        shape = (num_envs, len(self.rule.seats), self.net.carry_size)
        return torch.zeros(shape, device=self.net.actor.kernel.device) if self.net.carry_size else ()

    @torch.no_grad()
    def act(
        self, ts: TimeStep, carry: Any, generator: torch.Generator | None, greedy: bool = False
    ) -> tuple[Tensor, Any, dict[str, Tensor]]:
        """Sample (or take the mode of) the policy; keeps log-probability and value [E, A]."""
        carry, pi, value = self._forward(ts, carry)
        action = pi.mode() if greedy else pi.sample(generator)
        return action, carry, {"log_prob": pi.log_prob(action), "value": value}

    @torch.no_grad()
    def bootstrap(self, ts: TimeStep, carry: Any) -> Tensor:
        """[E, A] value of the state reached."""
        return self._forward(ts, carry)[2]

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Several epochs of minibatch steps on a batch [T, E, A, ...]; means over learners."""
        data, carry = self.prepare(batch)
        rule, (num, samples) = self.rule, data["target"].shape[:2]
        rows = torch.arange(num, device=data["target"].device)[:, None] * samples
        flat = jax.tree.map(lambda x: x.flatten(0, 1), (data, carry))
        seen = []
        for _ in range(rule.num_epochs):
            order = torch.rand(num, samples, generator=generator, device=rows.device).argsort(1) + rows
            for index in order.chunk(rule.num_minibatches, 1):
                for piece in index.chunk(rule.num_accumulations, 1):
                    take = lambda x, piece=piece: x[piece.flatten()].unflatten(0, piece.shape)
                    part, start = jax.tree.map(take, flat)
                    loss, metrics = self.loss(part, start)
                    (loss.sum() / rule.num_accumulations).backward()
                    seen.append(metrics)
                seen.append({"grad_norm": self.optimizer.step()})
        names = dict.fromkeys(k for metrics in seen for k in metrics)
        means = {k: torch.stack([m[k].mean() for m in seen if k in m]).mean() for k in names}
        return means | {"value": batch.extras["value"].mean()}

    def prepare(self, batch: Batch) -> tuple[dict[str, Any], Any]:
        """What minibatches are cut from, and the carries before the first step.

        Returns:
            data, leaves [P, T*B, ...], or [P, B, T, ...] if recurrent; carry [P, B, H] or ().
        """
        advantage, target = self._advantage(batch)
        start = torch.cat([torch.zeros_like(batch.done[:1]), batch.done[:-1]])
        data = {
            "obs": batch.obs,
            "action_mask": None if self.env.all_legal else batch.action_mask,
            "action": batch.action,
            "log_prob": batch.extras["log_prob"],
            "credit": advantage,
            "target": target,
            "start": start[..., None].expand_as(target),
        }
        data = jax.tree.map(lambda x: to_learners(x, self.rule.seats, 1), data)
        credit = data["credit"]
        mean, std = credit.mean((1, 2), keepdim=True), credit.std((1, 2), correction=0, keepdim=True)
        data["credit"] = (credit - mean) / (std + float(self.rule.advantage_eps))
        if not self.net.carry_size:
            return jax.tree.map(lambda x: x.flatten(1, 2), data), ()
        return jax.tree.map(lambda x: x.transpose(1, 2), data), to_learners(batch.carry, self.rule.seats, 0)

    def loss(self, part: dict[str, Any], carry: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [P] and metrics of a minibatch cut from what `prepare` returned; carry [P, b, H]."""
        step = lambda x: x.transpose(1, 2) if self.net.carry_size else x[:, None]
        part = jax.tree.map(step, part)  # [P, T, b, ...]; feed-forward parts are one long step
        _, out, value = self.net(carry, part["obs"], part["start"])
        pi = distribution(self.env.action_space, out, part["action_mask"])
        rule = self.rule
        return ppo_loss(pi, value, part, clip_eps=rule.clip_eps, vf_coef=rule.vf_coef, ent_coef=rule.ent_coef)

    def load(self, learner: ppo.Learner) -> None:
        """Take over parameters and optimiser of `algos.ppo`, leaves [P, ...]."""
        load_flax(self.net, learner.params)
        self.optimizer.load(learner.opt_state)

    def learner(self) -> ppo.Learner:
        """What `algos.ppo` would have learned: numpy leaves [P, ...]."""
        return ppo.Learner(to_flax(dict(self.net.named_parameters())), self.optimizer.state())

    def _forward(self, ts: TimeStep, carry: Any) -> tuple[Any, Distribution, Tensor]:
        """One network pass for all seats: carry, distribution over [E, A], value [E, A]."""
        seats = self.rule.seats
        carry, obs = jax.tree.map(lambda x: to_learners(x, seats, 0), (carry, ts.obs))
        obs = jax.tree.map(lambda x: x[:, None], obs)
        start = torch.zeros(next(iter(obs.values())).shape[:3], dtype=torch.bool, device=ts.reward.device)
        carry, out, value = self.net(carry, obs, start)
        carry, out, value = jax.tree.map(lambda x: to_seats(x, seats, 0), (carry, out[:, 0], value[:, 0]))
        mask = None if self.env.all_legal else ts.action_mask
        return carry, distribution(self.env.action_space, out, mask), value

    @torch.no_grad()
    def _advantage(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[T, E, A] advantages and value targets."""
        value = batch.extras["value"]
        last = self._forward(batch.last, batch.last_carry)[2]
        reached = torch.cat([value[1:], last[None]])
        if batch.bootstrap is not None:
            reached = torch.where(batch.done[..., None], batch.bootstrap, reached)
        rule = self.rule
        ends = (batch.terminated[..., None], batch.done[..., None])
        return gae(batch.reward, value, reached, *ends, gamma=rule.gamma, gae_lambda=rule.gae_lambda)


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, the twin of `marl.returns.gae`.

    Args:
        reward: [T, ...]; value: [T, ...] of the state before each step.
        next_value: [T, ...] of the state reached, before any restart.
        terminated, done: [T, ...] bool, broadcast against reward.
        gamma: discount; gae_lambda: weight of longer returns.

    Returns:
        advantage [T, ...] and value target [T, ...].
    """
    delta = reward + gamma * next_value * ~terminated - value
    decay = gamma * gae_lambda * ~done
    advantage, later = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        later = torch.addcmul(delta[t], decay[t].to(delta.dtype), later)
        advantage[t] = later
    return advantage, advantage + value


def ppo_loss(
    pi: Distribution,
    value: Tensor,
    batch: dict[str, Any],
    *,
    clip_eps: float,
    vf_coef: float,
    ent_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate plus value and entropy terms, the twin of `algos.ppo_loss.ppo_loss`.

    Args:
        pi: current action distribution over [P, ...], illegal actions masked.
        value: [P, ...] current value.
        batch: `action`, `log_prob`, `credit` and `target`, each [P, ...].
        clip_eps: bound of the ratio; vf_coef, ent_coef: weights of the terms.

    Returns:
        loss [P], and metrics, each [P].
    """
    mean = lambda x: x.flatten(1).mean(1)
    log_prob = pi.log_prob(batch["action"])
    ratio = (log_prob - batch["log_prob"]).exp()
    clipped = ratio.clamp(1 - clip_eps, 1 + clip_eps)
    pi_loss = -mean(torch.minimum(ratio * batch["credit"], clipped * batch["credit"]))
    vf_loss = 0.5 * mean((value - batch["target"]).square())
    entropy = mean(pi.entropy())
    loss = pi_loss + vf_coef * vf_loss - ent_coef * entropy
    kl = mean(batch["log_prob"] - log_prob)
    metrics = {"policy": pi_loss, "value_error": vf_loss, "entropy": entropy, "kl": kl}
    return loss, {k: v.detach() for k, v in metrics.items()}
