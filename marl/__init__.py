"""Framework of the project: environments, populations of learners, the training loop and its host side.

It knows no game and no learning rule. Importing it is cheap (no jax) and sets up two things; what a user has
set is respected. Both are read when the first computation starts, so import `marl`, `envs` or `algos` before.

- `NPROC=4` on machines with fewer than four cores: XLA's CPU thread pool, which has one thread a core, can
  deadlock under vmapped learners, because its tasks wait for sub-tasks of the same pool.
- `OPENBLAS_NUM_THREADS=1`: several of XLA's threads factorize the first weights of networks at once, and
  OpenBLAS's own threads below them wait for each other by spinning, seconds where other programs use the
  cores (`docs/performance.md`). It holds for NumPy too, if imported later.
"""

import os

WIDE = "4"  # NPROC on small machines


def _set_threads() -> None:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if cores < 4:
        os.environ.setdefault("NPROC", WIDE)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_set_threads()
