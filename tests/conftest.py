"""Settings that must stand before jax starts (thread pool, quick compilation), and options."""

import os

import marl  # noqa: F401  (sets up XLA's thread pool)

# Level 1 nearly halves compile time on CPU; results of a program do not depend on it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate-playthroughs",
        action="store_true",
        help="write tests/playthroughs/*.txt anew instead of comparing with them",
    )
