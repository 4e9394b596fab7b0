"""What the tests of PyTorch share: comparison with JAX, and learning through TorchEnv."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from algos.torch.rollout import rollout  # noqa: E402
from marl.torch_env import TorchEnv  # noqa: E402

torch.set_num_threads(1)  # JAX's threads and PyTorch's would wait for each other
TOLERANCE = 1e-5
NUM_ENVS = 32


def tensors(tree):
    """Copies of the arrays of a tree."""
    return jax.tree.map(lambda x: torch.tensor(np.asarray(x)), tree)


def assert_near(found, wanted, tolerance=TOLERANCE):
    """Every leaf within `tolerance`, absolute or relative; the error names the leaf that is not."""
    leaves = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, want), got in zip(leaves, jax.tree.leaves(found), strict=True):
        message = jax.tree_util.keystr(path)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=message)


def learn(make, rule, env, num_updates=60):
    """Train make(rule, env), then play on; `greedy` for what it plays.

    Returns:
        the Batch [T=15, E=32, A] that is played, whole episodes of every probe.
    """
    torch.manual_seed(0)
    games, generator = TorchEnv(env, NUM_ENVS, 0), torch.Generator().manual_seed(0)
    player = make(rule, env)
    ts, carry = games.reset(), player.initial_carry(NUM_ENVS)
    for _ in range(num_updates):
        batch, _ = rollout(player, games, ts, carry, rule.num_steps, generator)
        ts, carry = batch.last, batch.last_carry
        player.update(batch, generator)
    return rollout(player, games, ts, carry, 15, generator)[0]
