"""Settings that must stand before jax starts (thread pool, quick compilation), and options."""

import os
import resource
from pathlib import Path

import pytest

import marl  # noqa: F401  (sets up XLA's thread pool)

# Level 1 nearly halves compile time on CPU; results of a program do not depend on it. With wider instructions
# than AVX2's, LLVM cannot compile some programs at that level (clean_up_startup; jaxlib 0.10.2, AVX512 with VNNI).
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_max_isa=AVX2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate-playthroughs",
        action="store_true",
        help="write tests/playthroughs/*.txt anew instead of comparing with them",
    )


MAX_MEMORY_GB = 3.0


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Compiled programs pile up over hundreds of tests: drop them where a worker has grown large."""
    yield
    told = Path("/proc/self/statm")
    pages = int(told.read_text().split()[1]) if told.exists() else 0
    if pages * resource.getpagesize() > MAX_MEMORY_GB * 1e9:
        import jax

        jax.clear_caches()
