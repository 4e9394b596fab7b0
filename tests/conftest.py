"""Settings that must stand before jax starts: thread pool, quick compilation."""

import os

import marl  # noqa: F401  (sets up XLA's thread pool)

# Level 1 nearly halves compile time on CPU; results of a program do not depend on it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
