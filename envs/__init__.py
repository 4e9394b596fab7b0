"""Games, one file each; `envs.mechanisms` holds environments that wrap environments."""

import marl  # noqa: F401  (sets up XLA's thread pool before jax starts)
