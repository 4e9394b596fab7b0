"""What the commands of scripts/ share: help, errors as one clear message, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from marl.device import DeviceError
from marl.validation import ConfigError


def main(usage: str, command: Callable[[list[str]], int]) -> int:
    """Run `command` on the command line's arguments; returns the exit code.

    `--help` prints the usage and every choice of every config group without importing jax.
    """
    arguments = sys.argv[1:]
    sys.stdout = Console(sys.stdout)
    try:
        if {"-h", "--help"} & set(arguments):
            from marl.console import help_text
            from marl.plugins import named_in

            print(help_text(usage, named_in(arguments)))
            return 0
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
        told = str(error).split("\n")[0]
        error = DeviceError(f"{told}; lower num_envs, num_seeds or algo.num_steps")
        code = 3
    elif kind in ("DeviceError", "MemoryNeededError"):
        code = 3
    elif isinstance(error, OSError):
        code = 2
    else:
        raise error
    for line in str(error).split("\n"):
        print(f"error: {line}", file=sys.stderr)
    return code


class Console:
    """Standard output that may be closed or break at any time without stopping the program."""

    def __init__(self, stream: Any):
        """Write to `stream` (None: nowhere) for as long as it takes it."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the text if nobody reads any more."""
        try:
            if self._stream:
                self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush, if there is somewhere to flush to."""
        try:
            if self._stream:
                self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def isatty(self) -> bool:
        """Whether a person watches a terminal that understands control codes."""
        plain = os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ
        return bool(self._stream) and not plain and self._stream.isatty()

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):  # or the interpreter complains when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._stream = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
