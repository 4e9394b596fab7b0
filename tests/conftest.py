"""Settings that must stand before jax starts (thread pool, quick compilation), and options."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest

import marl  # noqa: F401  (sets up XLA's thread pool)

# Level 1 nearly halves compile time on CPU; results of a program do not depend on it. With wider instructions
# than AVX2's, LLVM cannot compile some programs at that level (clean_up_startup; jaxlib 0.10.2, AVX512 with VNNI).
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_max_isa=AVX2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

OWN_PROGRAMS = pytest.StashKey[str]()
PROGRAMS = "JAX_COMPILATION_CACHE_DIR"  # where programs are kept that several processes compile


def pytest_configure(config):
    """The process that starts workers and commands gives them a folder for programs; not the user's own."""
    if PROGRAMS not in os.environ:
        config.stash[OWN_PROGRAMS] = os.environ[PROGRAMS] = tempfile.mkdtemp(prefix="programs-")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def pytest_unconfigure(config):
    """Forget the programs."""
    if folder := config.stash.get(OWN_PROGRAMS, None):
        shutil.rmtree(folder, ignore_errors=True)


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
