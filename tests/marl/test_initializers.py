"""First weights of many learners: as those of one, and no factorization of a batch on a CPU."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from marl.initializers import orthogonal
from tests.runs import variables

KEYS = jax.random.split(jax.random.key(0), (2, 3))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 2, 3)])
def test_weights_under_vmap_are_those_of_jax_one_by_one(shape):
    drawn = jax.jit(jax.vmap(jax.vmap(lambda key: orthogonal(1.5)(key, shape))))(KEYS)
    alone = np.stack([[jax.nn.initializers.orthogonal(1.5)(key, shape) for key in row] for row in KEYS])
    np.testing.assert_allclose(drawn, alone, atol=1e-6)
    matrix = np.asarray(drawn[1, 2]).reshape(-1, shape[-1])
    small = matrix.T @ matrix if matrix.shape[0] > matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(small, 1.5**2 * np.eye(len(small)), atol=1e-5)


def test_factorizations_are_not_batched_on_a_cpu():
    many = jax.jit(jax.vmap(lambda key: orthogonal()(key, (4, 4))))
    lines = [line for line in many.lower(KEYS[0]).as_text().splitlines() if "@lapack" in line]
    assert len(lines) == 2  # the factorization, and the product of its reflectors
    assert all("4x4xf32" in line and "3x4x4xf32" not in line for line in lines)


@pytest.mark.parametrize(("users", "then"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_linear_algebra_has_one_thread_unless_the_user_says_otherwise(users, then):
    own = {k: v for k, v in variables().items() if k != "OPENBLAS_NUM_THREADS"}
    shows = "import marl, os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    told = subprocess.run([sys.executable, "-c", shows], env=own | users, capture_output=True, text=True)
    assert told.stdout.strip() == then
