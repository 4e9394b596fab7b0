"""Train learners in a game: `python scripts/train.py env=... algo=... mechanism=[...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from marl.cli import fail, main
from marl.device import start_device

USAGE = """
usage: python scripts/train.py [env=NAME] [mechanism=[NAME,...]] [algo=NAME] [network=NAME] [KEY=VALUE ...]

  Without env=, mechanism= or experiment= it runs experiment=quickstart/punishment, the main job.
  num_seeds=8 total_steps=1e6 num_envs=64 seats=independent|shared|[0,tit_for_tat]   size and seats
  algo.learning_rate=3e-4 env.horizon=50 mechanism.sanction.fine=2                   any key of a file
  +sweep.mechanism.sanction.fine=[0,1,2]     values trained at once, in one compiled program
  -m algo.gamma=0.9,0.99                     one run after the other (Hydra's multirun)
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
    """One job after the other, with Hydra's launcher; a failed job does not stop the others."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from marl.config import CONFIGS, compose, search_path
    from marl.plugins import named_in

    given = [a for a in argv if not a.startswith("-")]
    compose(given)  # every value is checked before the first job
    sys.argv += search_path(named_in(given))
    failed = []

    @hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
    def job(_) -> None:
        context = HydraConfig.get()
        overrides = list(context.overrides.task)
        if not any(o.startswith("run_dir=") for o in overrides):
            overrides.append(f"run_dir={context.runtime.output_dir}")
        try:
            code = train(overrides)
        except Exception as error:
            fail(error)
            code = 1
        if code in (75, 130):
            raise SystemExit(code)
        failed.extend([overrides] if code else [])

    job()
    for overrides in failed:
        print("failed:", *overrides)
    return 1 if failed else 0


if __name__ == "__main__":
    many = {"-m", "--multirun"} & set(sys.argv)
    sys.exit(main(USAGE, multirun if many else train))
