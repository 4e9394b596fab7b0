import os
import signal
import sys
import threading
import time

import pytest

from marl.side_by_side import run_commands
from marl.validation import ConfigError


def python(code):
    return [sys.executable, "-c", code]


def test_commands_run_at_the_same_time_but_not_more_than_allowed(tmp_path):
    """Each notes how many are under way when it begins."""
    code = (
        "import os, pathlib, sys, time; here = pathlib.Path({folder!r}); mine = here / str(os.getpid());"
        "mine.touch(); print(len(list(here.iterdir()))); time.sleep(1.0); mine.unlink()"
    )
    (tmp_path / "now").mkdir()
    commands = {name: python(code.format(folder=str(tmp_path / "now"))) for name in "abcd"}
    assert run_commands(commands, 2, tmp_path) == 0
    seen = [int((tmp_path / f"{name}.log").read_text()) for name in "abcd"]
    assert max(seen) == 2


def test_who_needs_another_waits_for_its_end(tmp_path):
    mark, look = (
        "import time; time.sleep(0.5); open({!r}, 'w')",
        "print(*sorted(__import__('os').listdir({!r})))",
    )
    done = tmp_path / "done"
    done.mkdir()
    commands = {
        "last": python(look.format(str(done))),
        "first": python(mark.format(str(done / "first"))),
        "free": python(mark.format(str(done / "free"))),
    }
    assert run_commands(commands, 3, tmp_path, {"last": {"first", "free"}}) == 0
    assert (tmp_path / "last.log").read_text().split() == ["first", "free"]


def test_commands_that_wait_for_each_other_are_named(tmp_path):
    commands = {name: python("") for name in ("free", "one", "two")}
    with pytest.raises(ConfigError, match="one, two: need each other"):
        run_commands(commands, 2, tmp_path, {"one": {"two"}, "two": {"one"}})
    assert (tmp_path / "free.log").exists()


def test_after_a_failure_nothing_begins_and_its_words_are_told(tmp_path, capsys):
    commands = {
        "good": python("pass"),
        "bad": python("print('why'); raise SystemExit(5)"),
        "later": python(""),
    }
    assert run_commands(commands, 1, tmp_path) == 5
    assert not (tmp_path / "later.log").exists()
    told = capsys.readouterr().out
    assert "good: done" in told
    assert "bad: exit code 5: why" in told


def test_a_signal_is_passed_on_and_waited_for(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(75)));"
        "print('ready', flush=True); time.sleep(60)"
    )

    def stop():
        while "ready" not in (tmp_path / "one.log").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "one.log").touch()
    threading.Thread(target=stop).start()
    assert run_commands({"one": python(code), "two": python("")}, 1, tmp_path) == 75
    assert (tmp_path / "one.log").read_text().split() == ["ready", "saved"]
    assert not (tmp_path / "two.log").exists()


def test_a_gpu_is_shared_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    name, other = "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_CLIENT_MEM_FRACTION"
    code = python(f"import os; print(os.environ.get('{name}'))")
    for said, found in (({}, "false"), ({name: "true"}, "true"), ({other: ".4"}, "None")):
        for key in (name, other):
            monkeypatch.delenv(key, raising=False)
        for key, value in said.items():
            monkeypatch.setenv(key, value)
        assert run_commands({"one": code}, 1, tmp_path) == 0
        assert (tmp_path / "one.log").read_text().strip() == found
