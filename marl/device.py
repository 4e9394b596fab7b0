"""What jax computes on: the device asked for, its memory, the cache of compiled programs.

Importing this module does not import jax.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

from marl import WIDE

TRIED = "MARL_XLA_FLAGS_TRIED"  # the variable that holds flags with which jax has started


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


class MemoryNeededError(RuntimeError):
    """A program needs more memory than the device has."""


def start_device(
    device: str, backend: str = "jax", num_cpu_devices: int = 1, one_thread_each: bool = False
) -> None:
    """Make jax use `device`: auto (a GPU if there is one), cpu or gpu.

    With several CPU devices each computes with one thread, and the pool that they share is wide: in one of
    as many threads as devices, or with products cut into tasks of it, learners wait for each other for
    ever. `one_thread_each` keeps it to as many threads, which is fast for games. The environment variable
    NPROC wins.

    With the backend torch, jax takes a GPU's memory as it needs it, unless the environment
    variables XLA_PYTHON_CLIENT_PREALLOCATE or XLA_CLIENT_MEM_FRACTION say otherwise.

    Raises:
        DeviceError: if a GPU is asked for and there is none, or jax cannot start as the
            environment variables JAX_PLATFORMS and XLA_FLAGS ask.
    """
    if backend == "torch":
        leave_memory(os.environ)
    if num_cpu_devices > 1:
        import jax

        jax.config.update("jax_num_cpu_devices", num_cpu_devices)
        if os.environ.get("NPROC", WIDE) == WIDE:
            os.environ["NPROC"] = str(num_cpu_devices * (1 if one_thread_each else 4))
    if (flags := os.environ.get("XLA_FLAGS")) and os.environ.get(TRIED) != flags:
        _try_flags(flags)
        os.environ[TRIED] = flags  # commands that this one starts need not try again
    if num_cpu_devices > 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_platforms", "cpu")
    elif device == "gpu":
        if _backend() != "gpu":
            raise DeviceError("device=gpu: jax finds no GPU here; use device=cpu, or `make train CUDA=13`")
    elif _backend() == "cpu" and shutil.which("nvidia-smi"):
        print("WARNING: jax does not see this machine's GPU; `make train CUDA=13` installs what it needs")


def leave_memory(environ: MutableMapping[str, str]) -> None:
    """Have jax, started with `environ`, take a GPU's memory as it needs it, unless told otherwise there."""
    if "XLA_CLIENT_MEM_FRACTION" not in environ:
        environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _backend() -> str:
    """The platform that jax computes on.

    Raises:
        DeviceError: if it cannot start one.
    """
    import jax

    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        told = str(error).split("\n")[0][:200] or "no such device here"
        raise DeviceError(f"JAX_PLATFORMS={asked}: {told}; use JAX_PLATFORMS=cpu or unset it") from error


def _try_flags(flags: str) -> None:
    """Start jax in another process: a flag that XLA does not know aborts without an exception.

    Raises:
        DeviceError: if it does not start.
    """
    code = "import jax; jax.devices()"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "Unknown flag" in probe.stderr:
        told = next(line for line in probe.stderr.splitlines() if "Unknown flag" in line)
        raise DeviceError(f"XLA_FLAGS={flags}: {told.split('] ')[-1]}")


def require_memory(needed: int) -> None:
    """Raise MemoryNeededError if the device has fewer than `needed` free bytes, as far as it tells."""
    import jax

    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    about = Path("/proc/meminfo")
    if device.platform == "cpu" and about.exists():
        line = next(line for line in about.read_text().splitlines() if line.startswith("MemAvailable"))
        free = int(line.split()[1]) * 1024
    if 0 < free < needed:
        raise MemoryNeededError(
            f"the program needs {needed / 1e9:.1f} GB, {device.device_kind} has {free / 1e9:.1f} GB free; "
            "lower num_envs, num_seeds or algo.num_steps"
        )


def use_compile_cache() -> None:
    """Keep compiled programs between runs in a folder that only the user can write.

    The folder must be trusted (what it holds is executed); JAX_COMPILATION_CACHE_DIR overrides it.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    import jax

    kind = f"jax-{jax.__version__}-{jax.default_backend()}-{_host_kind()}"
    folder = Path.home() / ".cache" / "marl" / kind
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if importlib.util.find_spec("filelock"):  # which jax needs to bound the folder's size
        jax.config.update("jax_compilation_cache_max_size", 2 << 30)


def _host_kind() -> str:
    """Eight hex digits for the kind of processor: compiled programs do not fit another."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else [platform.processor()]
    told = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(told.encode()).hexdigest()[:8]
