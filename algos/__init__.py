"""Learning rules and scripted players, one file each; none of them knows a game."""

import marl  # noqa: F401  (sets up XLA's thread pool before jax starts)
