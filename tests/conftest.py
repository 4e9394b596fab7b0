"""Settings that must stand before jax starts (thread pool, quick compilation), and options."""

import os
import resource
from importlib.metadata import version
from pathlib import Path

import pytest

import marl  # noqa: F401  (sets up XLA's thread pool)
from marl.device import TRIED

# Tests compile much and run little. Level 1 nearly halves compile time; the other passes and emitters save 37 %
# of the CPU time that is left (jaxlib 0.10.2, eight files). Level 0 compiles faster still, but then random play
# takes ten times as long, and equal games differ in last bits. With wider instructions than AVX2's, LLVM cannot
# compile some programs at level 1 (clean_up_startup; AVX512 with VNNI).
QUICK = [
    "--xla_backend_optimization_level=1",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_max_isa=AVX2",
]
if version("jaxlib").startswith("0.10."):
    QUICK.append("--xla_cpu_use_fusion_emitters=false")  # later ones do not know it
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
os.environ.setdefault(TRIED, " ".join(QUICK))  # so that commands do not try them, in half a second each
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
