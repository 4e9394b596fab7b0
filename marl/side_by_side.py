"""Several commands at once, each in a process of its own, such as the runs of a figure on many cores."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from marl.device import leave_memory
from marl.signals import StopSignal
from marl.validation import ConfigError

POLL_S = 0.2  # between two looks at the processes


def run_commands(
    commands: dict[str, list[str]], jobs: int, folder: Path, needs: Mapping[str, set[str]] | None = None
) -> int:
    """Run commands, at most `jobs` at a time, until all are done, one fails or a signal comes.

    A signal (see `marl.signals`) is passed on, once, and the commands are waited for. After a failure those
    that run go on to their end, and no other begins.

    Args:
        commands: {name: program and arguments}.
        jobs: processes at a time.
        folder: gets NAME.log with what each printed.
        needs: {name: the commands that must be done before it begins}; who is not named needs nothing.

    Returns:
        0, the code of the first that failed, or that of the signal.

    Raises:
        ConfigError: where commands that are left need each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting, running, code, told = dict(commands), {}, 0, False
    ready = lambda: [name for name in waiting if not (needs or {}).get(name, set()) & {*waiting, *running}]
    with StopSignal() as stop:
        while running or (waiting and not code):
            while not code and len(running) < jobs and (names := ready()):
                name = names[0]
                running[name] = _begin(waiting.pop(name), folder / f"{name}.log")
                print(f"{name}: begins, prints to {folder / name}.log", flush=True)
            if waiting and not running and not code:
                raise ConfigError([f"{', '.join(waiting)}: need each other, or themselves, done first"])
            time.sleep(POLL_S)
            if stop.received and not told:
                code, told = code or stop.exit_code, True
                for process in running.values():
                    process.send_signal(stop.received)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                ended = running.pop(name).returncode
                code = code or ended
                lines = (folder / f"{name}.log").read_text().strip().split("\n")
                print(f"{name}: {'done' if ended == 0 else f'exit code {ended}: {lines[-1]}'}", flush=True)
    return code


def _begin(command: list[str], log: Path) -> subprocess.Popen:
    """A process in a session of its own, so that a terminal's Ctrl-C reaches it only through us.

    On a GPU it must leave memory to the others.
    """
    environ = dict(os.environ)
    leave_memory(environ)
    with log.open("w") as out:
        told = {"stdout": out, "stderr": subprocess.STDOUT, "start_new_session": True}
        return subprocess.Popen(command, env=environ, **told)
