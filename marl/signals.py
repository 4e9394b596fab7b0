"""Orderly stops: a signal sets a flag, the host loop saves at the next chunk and leaves."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGUSR2: 75, signal.SIGINT: 130}
SECOND_SIGNAL_S = 5.0  # a second signal within this time stops at once
SLOW_CHUNK_S = 120.0  # silence after which a run says that it is waiting


class StopSignal:
    """While active, remembers SIGTERM, SIGUSR1, SIGUSR2 or Ctrl-C in `received` instead of dying.

    `exit_code` is 75 (stopped, can be resumed) or 130 (Ctrl-C). `hand_over` calls the handler
    that stood before, which is how a cluster's launcher requeues the job.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What the process should end with; 0 if no signal came."""
        return EXIT_CODES[signal.Signals(self.received)] if self.received else 0

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_over(self) -> None:
        """Let the handler that SIGUSR2 had before (a launcher's) do its part."""
        before = self._before.get(self.received or 0)
        if self.received == signal.SIGUSR2 and callable(before):
            before(self.received, None)

    def _note(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self.received is not None and now - self._since < SECOND_SIGNAL_S:
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.received, self._since = number, now


class Watch:
    """Says on the console when a block takes longer than expected; changes nothing else."""

    def __init__(self, what: str):
        """Name the block."""
        text = (
            f"{what} has taken over {SLOW_CHUNK_S:.0f} s; still waiting (lower log_every for shorter chunks)"
        )
        self._timer = threading.Timer(SLOW_CHUNK_S, print, [text])
        self._timer.daemon = True

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
