"""Train learners in a game: `python scripts/train.py env=... algo=... mechanism=[...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from marl.cli import fail, main
from marl.device import start_device
from marl.validation import ConfigError

USAGE = """
usage: python scripts/train.py [env=NAME] [mechanism=[NAME,...]] [algo=NAME] [network=NAME] [KEY=VALUE ...]

  Without env=, mechanism= or experiment= it runs experiment=quickstart/punishment, the main job.
  num_seeds=8 total_steps=1e6 num_envs=64 seats=independent|shared|[0,tit_for_tat]   size and seats
  algo.learning_rate=3e-4 env.horizon=50 mechanism.sanction.fine=2                   any key of a file
  +sweep.mechanism.sanction.fine=[0,1,2]     values trained at once, in one compiled program
  -m algo.gamma=0.9,0.99                     one run after the other (Hydra's multirun), in run_dir/0, 1 ...;
                                             or as jobs of a cluster (docs/cluster.md)
  run_dir=FOLDER                             where to write; an interrupted run's folder: resume it
  nan_policy=stop|skip:10                    what to do with updates that are not finite
  plugins=[MY_PACKAGE]                       your own package: its code and its configs/ (docs/plugins.md)
  backend=torch                              learn in PyTorch (ppo, dqn); the games still run in jax
  device=cpu|gpu  --dry-run                  where to compute; only check and show the configuration

Exit codes: 0 done, 1 a run of -m failed or the last checkpoint could not be saved, 2 bad input, 3 no
such device or too little memory, 4 run folder in use, 5 diverged, 75 stopped by a signal and
resumable, 130 Ctrl-C.
"""
MAIN_JOB = "experiment=quickstart/punishment"
NAMES_A_JOB = ("env", "mechanism", "experiment")


def train(overrides: list[str]) -> int:
    """Run the overrides' job; returns the exit code."""
    from marl.config import compose

    if not any(o.split("=")[0] in NAMES_A_JOB for o in overrides):
        overrides = [MAIN_JOB, *overrides]
    dry = "--dry-run" in overrides
    overrides = [o for o in overrides if o != "--dry-run"]
    cfg = compose(overrides)
    start_device(cfg.device, cfg.backend, cfg.num_devices)
    if dry:
        from omegaconf import OmegaConf

        from marl.build import build

        build(cfg)
        print(OmegaConf.to_yaml(cfg))
        return 0
    return _experiment(cfg, overrides) if cfg.figure else _run(cfg, overrides)


def _run(cfg, overrides: list[str]) -> int:
    from marl.console import ChunkProgress, print_summary
    from marl.run_folder import new_run_dir

    if cfg.backend == "torch":
        from algos.torch.trainer import run
    else:
        from marl.run import run

    folder = Path(cfg.run_dir) if cfg.run_dir else new_run_dir(cfg)
    print(f"run folder: {folder}")
    with ChunkProgress(folder.name) as progress:
        result = run(cfg, folder, progress)
    if result.exit_code:
        return _stopped(result.exit_code, folder, overrides)
    print_summary(folder.name, result.summary)
    return 0


def _experiment(cfg, overrides: list[str]) -> int:
    from marl.experiment import run_experiment
    from marl.run_folder import new_run_dir

    name = next(o.split("=")[1] for o in overrides if o.startswith("experiment="))
    folder = Path(cfg.run_dir) if cfg.run_dir else new_run_dir(cfg)
    print(f"run folder: {folder}")
    own = [o for o in overrides if not o.startswith("experiment=")]
    outcome = run_experiment(name, own, "smoke", folder)
    if outcome.exit_code:
        return _stopped(outcome.exit_code, folder, overrides)
    for claim in outcome.claims:
        print(claim.line())
    print(f"picture: {folder / name.replace('/', '-')}.png")
    return 0


def _stopped(code: int, folder: Path, overrides: list[str]) -> int:
    import shlex

    if code not in (75, 130):  # what went wrong has been said
        print(f"failed: {folder}")
        return code

    again = shlex.join([*(o for o in overrides if not o.startswith("run_dir=")), f"run_dir={folder}"])
    print(f"stopped and saved; to go on:\n  python scripts/train.py {again}")
    return code


def multirun(argv: list[str]) -> int:
    """A run for each combination of values, by Hydra's launcher; one that fails does not stop the others."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from marl.config import CONFIGS

    folder, sys.argv[1:] = _sweep(argv)

    @hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
    def job(_) -> None:
        context = HydraConfig.get()
        try:
            code = train([*context.overrides.task, f"run_dir={context.runtime.output_dir}"])
        except Exception as error:
            code = fail(error)
        if code in (75, 130):
            print(f"stopped; to go on, the same command with run_dir={folder}")
            raise SystemExit(code)

    lost = False
    try:
        job()
    except SystemExit as stop:
        lost = stop.code == 1  # a job that its launcher lost: the others count
        if not lost:
            raise
    return 1 if _report(folder) or lost else 0


def _sweep(argv: list[str]) -> tuple[Path, list[str]]:
    """The sweep's folder and Hydra's command line, after every value was checked."""
    from importlib.util import find_spec

    from marl.config import compose, quoted, search_path
    from marl.plugins import named_in
    from marl.run_folder import new_run_dir

    flags = [a for a in argv if a.startswith("-")]
    hydras = [a for a in argv if a.lstrip("+").startswith(("hydra.", "hydra/"))]
    given = [a for a in argv if a not in (*flags, *hydras)]
    if "--dry-run" in flags:
        raise ConfigError(["--dry-run: not with -m, which checks every value before the first run"])
    if any("submitit" in a for a in hydras) and find_spec("submitit") is None:
        raise ConfigError(["hydra/launcher: submitit is not installed; pip install -e '.[slurm]'"])
    cfg = compose(given)
    new = new_run_dir(cfg)
    folder = Path(cfg.run_dir or new.with_name(f"multirun-{new.name}"))
    swept = [a for a in given if not a.startswith("run_dir=")]
    own = [f"hydra.sweep.dir={quoted(str(folder.absolute()))}", *search_path(named_in(given))]
    return folder, [*flags, *hydras, *swept, *own]  # Hydra wants flags first


def _report(folder: Path) -> int:
    """A table of a sweep's runs; returns how many have not ended."""
    import json

    from omegaconf import OmegaConf

    from marl.console import print_runs

    found = {path.parents[1]: list(OmegaConf.load(path)) for path in folder.rglob(".hydra/overrides.yaml")}
    common = set.intersection(*map(set, found.values())) if len(found) > 1 else set()
    rows, done = {}, 0
    for run in sorted(found, key=lambda run: run.name.zfill(9)):
        summary = run / "summary.json"
        ended = summary.exists() or (run / "claims.json").exists()
        told = json.loads(summary.read_text())["metrics"] if summary.exists() else {}
        asked = " ".join(o for o in found[run] if o not in common)
        rows[run.name] = "done" if ended else "FAILED", asked, told
        done += ended
    print_runs(rows)
    print(f"{done} of {len(rows)} runs done: {folder}")
    return len(rows) - done


if __name__ == "__main__":
    many = {"-m", "--multirun"} & set(sys.argv)
    sys.exit(main(USAGE, multirun if many else train))
