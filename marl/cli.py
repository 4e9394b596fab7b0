"""What the commands of scripts/ share: help, errors as one clear message, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from marl.validation import ConfigError


def main(usage: str, command: Callable[[list[str]], int]) -> int:
    """Run `command` on the command line's arguments; returns the exit code.

    `--help` prints the usage and every choice of every config group without importing jax.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        from marl.console import help_text

        print(help_text(usage))
        return 0
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return fail(error)


def fail(error: Exception) -> int:
    """Print an expected error as lines of its own and give its exit code; raise any other again."""
    kind = type(error).__name__
    if isinstance(error, (ConfigError, FileNotFoundError)) or kind == "CheckpointError":
        code = 2
    elif kind == "RunLockedError":
        code = 4
    elif kind == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error):
        print("hint: lower num_envs, num_seeds or algo.num_steps", file=sys.stderr)
        code = 3
    elif kind == "DeviceError":
        code = 3
    else:
        raise error
    for line in str(error).split("\n"):
        print(f"error: {line}", file=sys.stderr)
    return code


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


def start_device(device: str) -> None:
    """Make jax use `device`: auto (a GPU if there is one), cpu or gpu.

    Raises:
        DeviceError: if a GPU is asked for and there is none.
    """
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_platforms", "cpu")
    elif device == "gpu":
        import jax

        if jax.default_backend() != "gpu":
            raise DeviceError("device=gpu: jax finds no GPU here; use device=cpu, or `make train CUDA=13`")


def options(arguments: list[str], defaults: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split `key=value` arguments into a command's own options, with `defaults`, and the rest."""
    pairs = [argument.partition("=") for argument in arguments]
    found = defaults | {key: value for key, _, value in pairs if key in defaults}
    return found, [a for a, (key, _, _) in zip(arguments, pairs, strict=True) if key not in defaults]


def whole_number(key: str, text: str) -> int:
    """The positive integer that `text` says.

    Raises:
        ConfigError: naming the key, if it says anything else.
    """
    if not text.isdigit() or int(text) < 1:
        raise ConfigError([f"{key}={text}: must be a whole number of at least 1"])
    return int(text)
