"""Deep Q-learning in PyTorch: the twin of `algos.dqn`, with the same configuration.

**Sources**: as `algos.dqn`. Deviations from it: feed-forward networks only, one for all stages;
random numbers are PyTorch's. All P learners compute in one batched product. Axes: P learners,
T steps, E games, A seats, N actions, C capacity, G gradient steps, B transitions of one.
"""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from algos import dqn
from algos.replay import Replay
from algos.torch.networks import QNetwork, load_flax, to_flax
from algos.torch.optim import Adam
from algos.torch.rollout import to_learners, to_seats
from marl.algorithm import Batch
from marl.config import construct
from marl.environment import Environment, TimeStep
from marl.population import Seats, num_learners


class DQN:
    """Q-learning from uniform replay, epsilon-greedy.

    Fields: rule, the `algos.dqn.DQN` whose hyper-parameters count; net and target, QNetworks of all
    learners; optimizer; replay, tensors [P, C, ...], made with the first update.
    """

    def __init__(self, rule: dqn.DQN, env: Environment, device: torch.device | str = "cpu"):
        """Fresh learners for one game; initial weights follow torch.manual_seed.

        Raises:
            ValueError: naming a key that PyTorch has no twin of.
        """
        if rule.by_stage:
            raise ValueError("algo.by_stage=true: backend=torch has one network; use false, or backend=jax")
        if rule.network.core:
            reason = "backend=torch has no recurrent dqn; use 0, or backend=jax"
            raise ValueError(f"network.core={rule.network.core}: {reason}")
        if rule.max_grad_value is not None or rule.decisions_only or rule.optimizer != "adam":
            keys = "algo.max_grad_value, algo.decisions_only, algo.optimizer"
            raise ValueError(f"{keys}: backend=torch has none; use null, false and adam, or backend=jax")
        self.rule, self.env, self.num_steps = rule, env, rule.num_steps
        self._num = num_learners(rule.seats)
        size = int(env.action_space.n)
        self.net = QNetwork(rule.network, env, self._num, size, rule.dueling).to(device)
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        rate = float(np.asarray(rule.learning_rate).reshape(-1)[0])
        self.optimizer = Adam(self.net, rate, float(rule.max_grad_norm), eps=1e-8)
        self.replay: dict[str, Any] | None = None
        self._position = self._size = self._steps = self._gradients = 0
        self._epsilon = self._epsilon_now()

    @classmethod
    def from_config(
        cls, node: DictConfig, env: Environment, seats: Seats, device: torch.device | str = "cpu"
    ) -> DQN:
        """From the configuration's `algo`; `seats` [A] is the learner of each seat."""
        return cls(construct(node, seats=tuple(seats)), env, device)

    def initial_carry(self, num_envs: int) -> Any:
        """(): nothing is remembered."""
        return ()

    @torch.no_grad()
    def act(
        self, ts: TimeStep, carry: Any, generator: torch.Generator | None, greedy: bool = False
    ) -> tuple[Tensor, Any, dict[str, Tensor]]:
        """The best legal action, or with probability epsilon any; keeps the value of the best [E, A]."""
        seats, mask = self.rule.seats, ts.action_mask
        q = self.net({k: to_learners(x, seats, 0) for k, x in ts.obs.items()})
        q = to_seats(q, seats, 0).masked_fill(~mask, torch.finfo(q.dtype).min)
        value, action = q.max(-1)
        if not greedy:
            draw = lambda shape: torch.rand(shape, generator=generator, device=mask.device)
            any_legal = draw(mask.shape).masked_fill(~mask, -1.0).argmax(-1)
            action = torch.where(draw(action.shape) < self._epsilon, any_legal, action)
        return action, carry, {"value": value}

    def bootstrap(self, ts: TimeStep, carry: Any) -> Any:
        """What is seen and legal in the state reached, [E, A, ...]."""
        return ts.obs, (None if self.env.all_legal else ts.action_mask)

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Store a batch [T, E, A, ...] and take G gradient steps; means over learners and steps."""
        rule = self.rule
        self._store(self._items(batch), batch.reward)
        shape = (rule.num_updates, self._num, rule.batch_size)
        device = batch.reward.device
        order = torch.randint(self._size, shape, generator=generator, device=device)
        order += torch.arange(self._num, device=device)[:, None] * self._capacity
        flat = jax.tree.map(lambda x: x.flatten(0, 1), self.replay)
        # before there is enough to learn from, losses are told but no step is taken
        ready = self._size >= min(float(rule.learning_starts), self._capacity)
        seen = []
        for index in order:
            take = lambda x, index=index: x[index.flatten()].unflatten(0, index.shape)
            with torch.set_grad_enabled(ready):
                loss, metrics = self.loss(jax.tree.map(take, flat))
            norm = self._descend(loss) if ready else torch.zeros_like(loss)
            seen.append(metrics | {"grad_norm": norm})
        means = {k: torch.stack([m[k] for m in seen]).mean() for k in seen[0]}
        means |= {"epsilon": torch.tensor(self._epsilon), "value": batch.extras["value"].mean()}
        self._steps = min(self._steps, dqn.MANY_STEPS) + batch.done.numel()
        self._epsilon = self._epsilon_now()
        return means

    def loss(self, items: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics, each [P], on transitions [P, B, ...]."""
        rule = self.rule
        q = _value_of(self.net(items["obs"]), items["action"])
        with torch.no_grad():
            next_q = self.target(items["next_obs"])
            chooser = self.net(items["next_obs"]) if rule.double else next_q
            if items["next_mask"] is not None:
                chooser = chooser.masked_fill(~items["next_mask"], torch.finfo(q.dtype).min)
            future = _value_of(next_q, chooser.argmax(-1)) * ~items["terminated"]
            goal = items["reward"] + float(rule.gamma) * future
        each = functional.huber_loss if rule.loss == "huber" else functional.mse_loss
        loss = each(q, goal, reduction="none").mean(1) * (1.0 if rule.loss == "huber" else 0.5)
        metrics = {"td": loss, "td_error": (goal - q).abs().mean(1), "q": q.mean(1)}
        return loss, {k: v.detach() for k, v in metrics.items()}

    def load(self, learner: dqn.Learner) -> None:
        """Take over networks, optimiser, replay and counts of `algos.dqn`, leaves [P, ...]."""
        networks = jax.tree.map(lambda x: np.asarray(x)[:, 0], learner.networks)  # of the one stage
        load_flax(self.net, networks.params)
        load_flax(self.target, networks.target)
        self.optimizer.load(networks.opt_state)
        device = self.net.actions.kernel.device
        tensor = lambda x: torch.tensor(np.asarray(x)[:, :, 0], device=device)
        self.replay = jax.tree.map(tensor, learner.replay.data)
        first = lambda x: int(np.asarray(x)[0])
        self._position, self._size = first(learner.replay.position), first(learner.replay.size)
        self._steps, self._gradients = first(learner.num_steps), first(learner.num_gradients)
        self._epsilon = self._epsilon_now()

    def learner(self) -> dqn.Learner:
        """What `algos.dqn` would have learned: numpy leaves [P, ...].

        Raises:
            RuntimeError: before the first `load` or `update`, as there is no replay yet.
        """
        if self.replay is None:
            raise RuntimeError("DQN.learner: nothing was learned or loaded yet")
        flax = lambda net: to_flax(dict(net.named_parameters()))
        networks = dqn.Networks(flax(self.net), flax(self.target), self.optimizer.state())
        networks = jax.tree.map(lambda x: x[:, None], networks)
        data = jax.tree.map(lambda x: x.cpu().numpy()[:, :, None], self.replay)
        each = lambda count: np.full(self._num, count, np.int32)
        replay = Replay(data, each(self._position), each(self._size))
        return dqn.Learner(networks, replay, each(self._steps), each(self._gradients))

    def _epsilon_now(self) -> float:
        return float(np.asarray(self.rule.epsilon(jnp.int32(self._steps))).reshape(-1)[0])

    @property
    def _capacity(self) -> int:
        return jax.tree.leaves(self.replay)[0].shape[1]

    def _items(self, batch: Batch) -> dict[str, Any]:
        """What a rollout adds to the replay: leaves [P, T*E*K, ...]."""
        masks = (None, None) if self.env.all_legal else (batch.action_mask, batch.last.action_mask)
        follow = lambda now, last: torch.cat([now[1:], last[None]])
        reached = jax.tree.map(follow, (batch.obs, masks[0]), (batch.last.obs, masks[1]))
        if batch.bootstrap is not None:
            done = lambda x: batch.done[(..., *(None,) * (x.dim() - 2))]
            choose = lambda x, ended: torch.where(done(x), ended, x)
            reached = jax.tree.map(choose, reached, batch.bootstrap)
        data = {"obs": batch.obs, "action": batch.action.to(torch.int32), "reward": batch.reward}
        data |= {"terminated": batch.terminated[..., None].expand_as(batch.reward)}
        data |= {"next_obs": reached[0], "next_mask": reached[1]}
        data = jax.tree.map(lambda x: to_learners(x, self.rule.seats, 1).flatten(1, 2), data)
        return data | {"carry": ()}

    def _store(self, items: dict[str, Any], reward: Tensor) -> None:
        """Append items [P, n, ...], the oldest overwritten first."""
        num = items["reward"].shape[1]
        if self.replay is None:
            capacity = max(1, self.rule.buffer_size // num) * num
            self.replay = jax.tree.map(lambda x: x.new_zeros(x.shape[0], capacity, *x.shape[2:]), items)
        capacity = self._capacity
        index = (torch.arange(num, device=reward.device) + self._position) % capacity
        jax.tree.map(lambda old, new: old.index_copy_(1, index, new), self.replay, items)
        self._position = (self._position + num) % capacity
        self._size = min(self._size + num, capacity)

    def _descend(self, loss: Tensor) -> Tensor:
        """One step of every learner along the gradient of loss [P]; returns the norms [P]."""
        loss.sum().backward()
        norm = self.optimizer.step()
        self._gradients += 1
        if self._gradients % int(self.rule.target_every) == 0:
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.net.parameters(), strict=True):
                    slow.lerp_(fast, float(self.rule.tau))
        return norm


def _value_of(q: Tensor, action: Tensor) -> Tensor:
    """[..., N] values and [...] actions -> [...] the values of the actions."""
    return q.gather(-1, action[..., None].long())[..., 0]
