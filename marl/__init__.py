"""Framework of the project: environments, populations of learners, the training loop and its host side.

It knows no game and no learning rule. Importing it is cheap (no jax) and sets up one
thing: on machines with fewer than four cores XLA's CPU thread pool, which has one thread a
core, can deadlock under vmapped learners, because its tasks wait for sub-tasks of the same
pool. `NPROC=4` widens the pool; a value that the user has set is respected. XLA reads the
variable when the first computation starts, so import `marl`, `envs` or `algos` before that.
"""

import os

WIDE = "4"  # NPROC on small machines


def _widen_thread_pool() -> None:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if cores < 4:
        os.environ.setdefault("NPROC", WIDE)


_widen_thread_pool()
