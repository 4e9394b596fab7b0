"""Bad days: kills while saving, full disks, damaged folders, hostile files, odd terminals."""

import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from marl import checkpoint, cli, run_folder
from marl.build import load, load_run
from marl.config import compose
from marl.program import Program
from marl.run import run
from marl.validation import ConfigError
from tests.runs import ROOT, TINY, command, parameters, rows

EVERY = [*TINY, "checkpoint_every=1"]
SCRIPTED = [
    "env=chicken",
    "algo=random",  # its numbers vary
    "env.horizon=6",
    "num_envs=4",
    "total_steps=640",
    "log_every=4",
]
SLOW_RUN = (
    "import sys, time; from pathlib import Path\n"
    "from marl.config import compose; from marl.run import run\n"
    "result = run(compose(sys.argv[2:]), Path(sys.argv[1]), lambda *_: time.sleep(0.5))\n"
    "sys.exit(result.exit_code)"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(compose(EVERY), folder).exit_code == 0
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def begin(folder, code=SLOW_RUN):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), *EVERY], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(whole, tmp_path):
    folder, draw = tmp_path / "run", random.Random(0)
    for _ in range(10):
        process = begin(folder)
        before = len(rows(folder))
        wait_for(lambda n=before, p=process: len(rows(folder)) > n or p.poll() is not None)
        time.sleep(draw.uniform(0.0, 0.9))  # a chunk takes about half a second, saves included
        process.kill()
        process.wait()
    assert run(compose(EVERY), folder).exit_code == 0
    assert rows(folder) == rows(whole)
    assert parameters(folder) == parameters(whole)


SOON_AND_LATE = ["_writer", "_prune"]
BETWEEN = [pytest.param(moment, marks=pytest.mark.slow) for moment in ("_sha256", "write_atomically")]


@pytest.mark.parametrize("moment", SOON_AND_LATE + BETWEEN)
def test_a_kill_in_the_middle_of_a_save_leaves_the_older_checkpoint(whole, tmp_path, moment):
    code = (
        "import os; from marl import checkpoint\n"
        f"honest, calls = checkpoint.{moment}, []\n"
        "def die(*a, **k):\n"
        "    calls.append(0)\n"
        "    if (checkpoint_dir / '4.json').exists(): os._exit(9)\n"
        "    return honest(*a, **k)\n"
        "import sys, pathlib; checkpoint_dir = pathlib.Path(sys.argv[1]) / 'checkpoints'\n"
        f"checkpoint.{moment} = die\n"
    )
    folder = tmp_path / "run"
    process = begin(folder, code + SLOW_RUN)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 9, told
    assert checkpoint.restore(folder / "checkpoints", like=like(folder))[0] in (4, 8)
    assert run(compose(EVERY), folder).exit_code == 0
    assert rows(folder) == rows(whole)
    assert parameters(folder) == parameters(whole)
    assert not list((folder / "checkpoints").glob("*.writing"))


def like(folder):
    import jax

    return jax.eval_shape(Program(load(*EVERY)).start)


def test_a_kill_during_the_first_save_starts_anew(whole, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints/4").mkdir(parents=True)
    (folder / "checkpoints/4.writing").touch()
    (folder / "checkpoints/8.orbax-checkpoint-tmp").mkdir()
    assert run(compose(EVERY), folder).exit_code == 0
    assert parameters(folder) == parameters(whole)
    assert not (folder / "checkpoints/8.orbax-checkpoint-tmp").exists()


def test_a_signal_during_a_save_lets_it_finish(whole, tmp_path, monkeypatch):
    honest = checkpoint._sha256

    def interrupted(path):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(path)

    monkeypatch.setattr(checkpoint, "_sha256", interrupted)
    monkeypatch.setattr("marl.signals.SECOND_SIGNAL_S", -1.0)  # one for each file is not a second wish
    assert run(compose(EVERY), tmp_path / "run").exit_code == 75
    monkeypatch.undo()
    assert checkpoint.valid_checkpoints(tmp_path / "run/checkpoints") == [4]
    assert run(compose(EVERY), tmp_path / "run").exit_code == 0
    assert parameters(tmp_path / "run") == parameters(whole)


def test_a_second_signal_stops_at_once(tmp_path):
    process = begin(tmp_path / "run", SLOW_RUN.replace("0.5", "60"))
    wait_for(lambda: rows(tmp_path / "run"))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75
    assert time.monotonic() - began < 10


def test_ctrl_c_leaves_no_trace_of_python(tmp_path):
    arguments = [*EVERY, "total_steps=1e9", f"run_dir={tmp_path}/run"]
    call = [sys.executable, "scripts/train.py", "env=prisoners_dilemma", *arguments]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: rows(tmp_path / "run"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"run_dir={tmp_path}/run" in out.splitlines()[-1]


def test_a_full_disk_costs_checkpoints_but_not_the_run(tmp_path, monkeypatch):
    honest, full = checkpoint._writer, [True]

    class Full:
        def save(self, target, tree, force):
            if full:
                target.mkdir()
                (target / "part").write_bytes(b"x")
                raise ValueError("RESOURCE_EXHAUSTED: No space left on device")
            honest().save(target, tree, force=force)

    monkeypatch.setattr(checkpoint, "_writer", Full)
    with pytest.warns(UserWarning, match="checkpoint 16 could not be saved"):
        result = run(compose(EVERY), tmp_path / "run", lambda done, *_: full.clear() if done == 20 else None)
    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == ["20", "20.json"]
    full.append(True)
    with pytest.warns(UserWarning, match="checkpoint 20 could not be saved"):
        assert run(compose(EVERY), tmp_path / "other").exit_code == 1
    assert not list((tmp_path / "other/checkpoints").iterdir())


def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(OSError, match=r"no space: it needs 0.4 MB"):
        checkpoint.save(tmp_path, 1, {"a": np.zeros(100_000, np.float32)}, score=0.0, about={})
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_system_that_fills_up(tmp_path):
    """A real one of 20 MB, where the machine lets us mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        tree = {"a": np.random.default_rng(0).random(1_000_000)}  # 8 MB, does not compress
        checkpoint.save(disk / "c", 1, tree, score=0.0, about={})
        (disk / "ballast").write_bytes(os.urandom(8_000_000))
        with pytest.raises((OSError, ValueError)):
            checkpoint.save(disk / "c", 2, tree, score=0.0, about={})
        assert checkpoint.valid_checkpoints(disk / "c") == [1]
        assert checkpoint.numbers(disk / "c") == [1]
        (disk / "ballast").unlink()
        checkpoint.save(disk / "c", 2, tree, score=0.0, about={})
        assert checkpoint.valid_checkpoints(disk / "c") == [2, 1]
    finally:
        subprocess.run(["umount", str(disk)], check=False)


@pytest.mark.parametrize("stray", ["a folder named like a checkpoint", "an orbax leftover", "a notebook"])
def test_strange_things_beside_checkpoints_do_not_count(copy, stray):
    checkpoints = copy / "checkpoints"
    if stray == "a folder named like a checkpoint":
        (checkpoints / "97").mkdir()
        with pytest.warns(UserWarning, match="passed over checkpoint 97 .*: it has no manifest"):
            load_run(copy)
    else:
        (checkpoints / ("21.orbax-checkpoint-tmp" if "orbax" in stray else "notes.txt")).mkdir()
        load_run(copy)
    assert checkpoint.valid_checkpoints(checkpoints)[0] == 20


def test_an_empty_manifest_and_another_format_are_named(copy):
    manifest = copy / "checkpoints/20.json"
    text = manifest.read_text()
    manifest.write_text("")
    assert checkpoint.verify(copy / "checkpoints", 20) == "its manifest cannot be read"
    manifest.write_text(text.replace('"format": 1', '"format": 0'))
    assert checkpoint.verify(copy / "checkpoints", 20) == "its format is 0, this version reads 1"


def test_verify_lists_every_checkpoint(copy):
    manifest = copy / "checkpoints/20.json"
    manifest.write_text("{}")
    result = command("verify", f"run={copy}")
    found = {line["checkpoint"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert result.returncode == 0
    assert found[20]["problem"] == "its manifest cannot be read"
    assert found[16]["valid"] is True
    for older in (copy / "checkpoints").glob("*.json"):
        older.unlink()
    assert command("verify", f"run={copy}").returncode == 2


def test_a_checkpoint_of_another_network_names_the_leaves_that_differ(copy):
    cfg = OmegaConf.load(copy / "config.yaml")
    cfg.network.hidden = cfg.algo.network.hidden = [12]
    OmegaConf.save(cfg, copy / "config.yaml")
    with pytest.raises(checkpoint.CheckpointError, match=r"kernel'\] is float32\[2, 2, 4, 8\], .* float32"):
        load_run(copy)


def test_force_resume_goes_on_with_another_number_and_prints_the_difference(copy, capsys):
    changed = [*EVERY, "total_steps=1280", "algo.gamma=0.5"]
    with pytest.raises(ConfigError, match="or set force_resume=true"):
        run(compose(changed), copy)
    assert run(compose([*changed, "force_resume=true"]), copy).exit_code == 0
    assert "force_resume: algo.gamma=0.5: the run in" in capsys.readouterr().out


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path, capsys):
    ended = subprocess.Popen(["true"])
    ended.wait()
    facts = {"pid": ended.pid, "host": os.uname().nodename, "started": "1"}
    (tmp_path / "LOCK").write_text(json.dumps(facts))
    with run_folder.locked(tmp_path):
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()
    assert f"taking over {tmp_path} from process {ended.pid}" in capsys.readouterr().out
    assert not (tmp_path / "LOCK").exists()


def test_a_lock_without_flock_still_holds(tmp_path, monkeypatch):
    """On file systems where flock does nothing the file LOCK must do: another process lives."""
    sleeper = subprocess.Popen(["sleep", "60"])
    facts = {"pid": sleeper.pid, "host": os.uname().nodename, "started": run_folder._started(sleeper.pid)}
    (tmp_path / "LOCK").write_text(json.dumps(facts))
    try:
        with pytest.raises(run_folder.RunLockedError, match=f"process {sleeper.pid}"):
            run_folder.locked(tmp_path).__enter__()
    finally:
        sleeper.kill()
    (tmp_path / "LOCK").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    with pytest.raises(run_folder.RunLockedError, match="process 1 on elsewhere; if that process is gone"):
        run_folder.locked(tmp_path).__enter__()
    os.utime(tmp_path / "LOCK", (0, 0))  # not renewed for long
    with run_folder.locked(tmp_path):
        pass


def test_a_second_process_exits_4(tmp_path):
    with run_folder.locked(tmp_path):
        result = command("train", "env=chicken", *TINY, f"run_dir={tmp_path}")
    assert result.returncode == 4
    assert f"in use by process {os.getpid()} on" in result.stderr


def test_an_output_folder_that_cannot_be_made_exits_2():
    result = command("train", "env=chicken", *TINY, "run_dir=/proc/nowhere/run")
    assert result.returncode == 2
    assert "run_dir=/proc/nowhere/run: cannot be written" in result.stderr


def test_platforms_and_flags_that_do_not_exist_exit_3():
    absent = command("train", "env=chicken", *TINY, JAX_PLATFORMS="cuda")
    assert absent.returncode == 3
    assert "JAX_PLATFORMS=cuda" in absent.stderr
    assert len(absent.stderr.splitlines()) < 6
    unknown = command("train", "env=chicken", *TINY, XLA_FLAGS="--xla_frobnicate=1")
    assert unknown.returncode == 3
    assert "Unknown flag in XLA_FLAGS: --xla_frobnicate=1" in unknown.stderr


def test_too_many_games_exit_3_before_they_are_made():
    result = command("train", "env=coin_game", *TINY, "env.horizon=50", "num_envs=2_000_000_000")
    assert result.returncode == 3
    assert "lower num_envs, num_seeds or algo.num_steps" in result.stderr


def test_running_out_of_memory_names_the_keys_to_lower(capsys):
    from jax.errors import JaxRuntimeError

    error = JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nmore")
    assert cli.fail(error) == 3
    told = capsys.readouterr().err
    assert "allocating 123 bytes" in told
    assert "lower num_envs, num_seeds or algo.num_steps" in told
    assert len(told.splitlines()) == 1


def test_a_damaged_or_forbidden_compile_cache_changes_nothing(tmp_path):
    cache, arguments = tmp_path / "cache", SCRIPTED
    variables = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    assert command("train", *arguments, f"run_dir={tmp_path}/a", **variables).returncode == 0
    files = [p for p in cache.rglob("*") if p.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    assert command("train", *arguments, f"run_dir={tmp_path}/b", **variables).returncode == 0
    variables["JAX_COMPILATION_CACHE_DIR"] = "/proc/nowhere"
    assert command("train", *arguments, f"run_dir={tmp_path}/c", **variables).returncode == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b") == rows(tmp_path / "c")


REST = "mechanism: {}\nalgo: {}\nseats: shared\nsweep: {}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: !!python/object/apply:os.system ['touch HACKED']\n", "config.yaml cannot be read"),
        ("a: [", "config.yaml cannot be read"),
        (f"{REST}env: {{_target_: os.system, command: touch HACKED}}\n", "_target_ os.system is outside"),
        (f"{REST}env: {{_target_: builtins.getattr}}\nplugins: [builtins]\n", "_target_ builtins.getattr is"),
        ("just text\n", "config.yaml cannot be read"),
    ],
)
def test_a_hostile_config_in_a_run_folder_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "run")
    assert not Path("HACKED").exists()


def test_names_with_paths_or_commands_in_them_are_refused(tmp_path):
    for override in ("experiment=../../x", "env=$(touch HACKED)", "algo=../ppo", "network=/etc/passwd"):
        result = command("train", override, *TINY, cwd=tmp_path)
        assert result.returncode == 2, override
        assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 1)

    monkeypatch.setattr(run_folder.datetime, "datetime", Stopped)
    cfg = compose([])
    names = {run_folder.new_run_dir(cfg) for _ in range(500)}
    assert len(names) == 500


def test_a_moved_folder_goes_on_under_a_relative_path(whole, copy, monkeypatch):
    for newest in ("20.json", "16.json"):
        (copy / "checkpoints" / newest).unlink()
    for newest in ("20", "16"):
        shutil.rmtree(copy / "checkpoints" / newest)
    (copy / "summary.json").unlink()
    moved = copy.rename(copy.with_name("elsewhere"))
    monkeypatch.chdir(moved.parent)
    assert run(compose(EVERY), Path("elsewhere")).exit_code == 0
    assert rows(moved) == rows(whole)
    assert parameters(moved) == parameters(whole)


def test_step_counters_pass_two_to_the_31():
    program = Program(load(*TINY, "total_steps=1e10"))
    runners = program.start()
    program.compile(runners)
    first = 2**31 // program.env_steps_per_update - 2
    first -= first % program.chunk_updates
    steps = (first + program.chunk_updates) * program.env_steps_per_update
    _, metrics = program.run_chunk(runners, first)
    assert steps > 2**31 - 2**10
    assert program.num_updates * program.env_steps_per_update >= 10**10
    assert np.isfinite(metrics["reward"]).all()
    _, later = program.run_chunk(program.start(), 10**9)
    assert np.isfinite(later["reward"]).all()


def test_terminals_without_colour_get_plain_lines(tmp_path):
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        result = command("train", *SCRIPTED, f"run_dir={tmp_path}/{'-'.join(variables)}", **variables)
        assert result.returncode == 0
        assert "\x1b" not in result.stdout + result.stderr


def test_nobody_needs_to_read_the_output(tmp_path):
    call = f"{sys.executable} scripts/train.py {' '.join(SCRIPTED)} run_dir={tmp_path}"
    for kind in ("| true; exit ${PIPESTATUS[0]}", ">&-"):
        done = subprocess.run(
            ["bash", "-c", call + f"/{len(kind)} {kind}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stderr
        assert (tmp_path / str(len(kind)) / "summary.json").exists()


def test_nothing_forks_after_jax_has_started():
    """Only os.fork and multiprocessing could: neither is used, subprocesses start afresh."""
    for package in ("marl", "envs", "algos", "scripts"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert "multiprocessing" not in text, path
            assert "os.fork" not in text, path


def test_an_old_checkpoint_still_loads():
    """A run folder written with format 1 by jax 0.10: the same numbers must come out for ever."""
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        setup, learner = load_run(ROOT / "tests/data/run_format_1")
    kernels = [x for x in jax.tree.leaves(learner) if x.ndim == 4]
    expected = json.loads((ROOT / "tests/data/run_format_1/expected.json").read_text())
    assert setup.cfg.num_seeds == expected["num_seeds"]
    np.testing.assert_allclose([float(np.abs(x).sum()) for x in kernels], expected["sums"], rtol=1e-6)
