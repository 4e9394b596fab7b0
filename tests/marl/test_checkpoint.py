"""Checkpoints: what is restored is what was saved, or is refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl import checkpoint

TREE = {
    "a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "b": {"count": jnp.int32(7), "on": jnp.array([True])},
}


def save(folder, update, tree=TREE, score=0.0):
    checkpoint.save(folder, update, tree, score=score, about={"config_hash": "x"})


def test_a_checkpoint_restores_bit_for_bit(tmp_path):
    save(tmp_path, 5)
    update, tree = checkpoint.restore(tmp_path, jax.eval_shape(lambda: TREE))
    assert update == 5
    for old, new in zip(jax.tree.leaves(TREE), jax.tree.leaves(tree), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for update, score in ((1, 0.0), (2, 9.0), (3, 1.0), (4, 2.0), (5, 3.0)):
        save(tmp_path, update, score=score)
    assert sorted(int(p.stem) for p in tmp_path.glob("*.json")) == [2, 4, 5]
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.is_dir()) == [2, 4, 5]
    assert json.loads((tmp_path / "2.json").read_text())["score"] == 9.0


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            TREE | {"a": jnp.zeros((2, 4))},
            r"\['a'\] is float32\[2, 3\], this configuration needs float32\[2, 4\]",
        ),
        (TREE | {"a": jnp.zeros((2, 3), jnp.int32)}, r"needs int32\[2, 3\]"),
        (TREE | {"c": jnp.zeros(1)}, r"\['c'\]: needed, not there"),
    ],
)
def test_another_shape_dtype_or_tree_is_refused_by_name(tmp_path, like, message):
    save(tmp_path, 1)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore(tmp_path, like)


def test_an_empty_folder_with_a_number_for_a_name_is_no_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "97").mkdir()
    with pytest.warns(UserWarning, match="checkpoint 97 .* has no manifest"):
        assert checkpoint.restore(tmp_path, TREE)[0] == 1


def test_no_checkpoint_at_all_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.restore(tmp_path, TREE)
