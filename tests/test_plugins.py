"""docs/plugins.md, followed word for word in another folder; and what happens to what is not right."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from marl import build, plugins
from marl.config import compose, describe, groups
from marl.experiment import plan
from marl.validation import ConfigError
from tests import conformance
from tests.runs import ROOT, variables

TEXT = (ROOT / "docs" / "plugins.md").read_text()
FILES = dict(re.findall(r"^`(my_research/[^`]+)`[^`]*\n\n```\w+\n(.*?)```", TEXT, re.S | re.M))
COMMANDS = re.search(r"```bash\n(.*?)```", TEXT, re.S)[1].strip().splitlines()


def write_package(folder):
    """The files of the page, in `folder`."""
    (folder / "my_research").mkdir(parents=True)
    (folder / "my_research/__init__.py").touch()
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def shell(line, cwd):
    """Run a line of the page as a user would whose `python` is this one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = variables(MARL=str(ROOT), PATH=path)
    call = ["bash", "-c", line]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a blank in its name, in which the page's commands have run; and what they answered."""
    folder = tmp_path_factory.mktemp("a project")
    write_package(folder)
    return folder, [shell(line, folder) for line in COMMANDS]


def final(run_dir, metric):
    return json.loads((run_dir / "summary.json").read_text())["metrics"][metric]["per_seed"]


def test_every_command_of_the_page_succeeds(project):
    assert len(FILES) == len(COMMANDS) == 5
    for line, result in zip(COMMANDS, project[1], strict=True):
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"


def test_help_lists_the_choices_of_a_plugin_with_their_first_lines(project):
    shown = project[1][0].stdout
    assert re.search(r"^  roads +Pigou's two roads: the narrow one is quicker", shown, re.M)
    assert re.search(r"^  toll +A toll on the narrow road", shown, re.M)
    assert re.search(r"^  gradient_bandit +Gradient bandit", shown, re.M)
    assert re.search(r"^  coin_game ", shown, re.M)


def test_the_rule_of_the_page_learns_what_pays_in_the_game_of_the_page(project):
    folder, results = project
    # all drivers on the narrow road: one hour
    assert final(folder / "runs/free", "reward") == pytest.approx([-1.0] * 4, abs=0.02)
    greedy = json.loads(results[2].stdout)["self_play"]["greedy"]
    assert greedy["events/congested"]["per_seed"] == [1.0] * 4
    assert greedy["reward"]["mean"] == -1.0
    assert greedy["episode_length"]["mean"] == 20


def test_a_run_of_a_plugin_goes_on_where_it_stopped(project):
    folder, results = project
    assert "after update 200 of 300" in results[3].stdout
    rows = [json.loads(row) for row in (folder / "runs/free/metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == list(range(3200, 96001, 3200))


def test_a_multirun_finds_plugins_and_the_toll_of_the_page_moves_the_drivers(project):
    runs = sorted(path.parent for path in project[0].glob("runs/multirun-*/*/summary.json"))
    shares = [sum(final(run, "events/congested")) / 4 for run in runs]
    assert shares[0] > 0.98
    assert shares[1] == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            "plugins=[my_reserch] env=roads",
            ["plugins=[my_reserch]: no such package, did you mean my_research?"],
        ),
        ("plugins=[my_research] env=road", ["env=road: no such env, did you mean roads?"]),
        ("env=roads", ["env=roads: no such env"]),
        (
            "plugins=[my_research] env=roads algo=gradient_bandit algo.learning_rate=-1 env.drivers=3",
            ["algo.learning_rate=-1", "env.drivers: no such key, did you mean env.num_drivers?"],
        ),
        ("env=chicken env._target_=my_research.roads.Roads", ["list its package in plugins"]),
        ("plugins=my_research env=roads", ["plugins=my_research: must be a list"]),
    ],
)
def test_bad_input_ends_with_a_line_for_each_error(project, arguments, messages):
    result = shell(f"python $MARL/scripts/train.py {arguments}", project[0])
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == len(messages)
    for message in messages:
        assert any(message in line for line in lines), lines


def test_a_run_folder_of_a_plugin_is_refused_to_who_does_not_trust_it(project):
    result = shell("python $MARL/scripts/evaluate.py run=runs/free", project[0])
    assert result.returncode == 2
    assert (
        "my_research.roads.Roads is outside envs, algos, marl; list its package in plugins" in result.stderr
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The package in the working folder, as another name, without its code being imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_package(tmp_path)
    (tmp_path / "my_research").rename(tmp_path / "other_research")
    return tmp_path / "other_research"


def test_choices_are_found_without_importing_the_package(here):
    known = groups(["other_research"])
    assert known["env"].count("roads") == 1
    assert "roads" not in groups()["env"]
    assert describe("env", "roads", ["other_research"]).startswith("Pigou's two roads")
    assert compose(["plugins=[other_research]", "env=roads"]).env.num_drivers == 10
    assert "other_research" not in sys.modules


def test_an_edited_file_is_read_anew(here):
    file, ask = here / "configs/env/roads.yaml", ["plugins=[other_research]", "env=roads"]
    assert compose([*ask, "env.num_drivers=4"]).env.num_drivers == 4
    assert compose(ask).env.num_drivers == 10
    file.write_text(file.read_text().replace("num_drivers: 10", "num_drivers: 12"))
    assert compose(ask).env.num_drivers == 12


def test_a_name_that_exists_already_is_refused(here):
    (here / "configs/env/roads.yaml").rename(here / "configs/env/chicken.yaml")
    with pytest.raises(ConfigError, match=r"^env=chicken: two files have this name; rename the plugin's$"):
        compose(["plugins=[other_research]", "env=chicken"])


@pytest.mark.parametrize(
    "text", ["[other_research]", "other_research", "['other_research']", "[ other_research ]"]
)
def test_packages_are_read_from_the_command_line(here, text):
    assert plugins.named_in([f"plugins={text}", "env=roads"]) == ["other_research"]


@pytest.mark.parametrize("name", ["nowhere", "__main__", "../envs", "os.path"])
def test_what_is_no_package_is_refused(here, name):
    with pytest.raises(ConfigError, match="no such package"):
        plugins.listed(name)


def test_an_experiment_of_a_plugin_is_planned(here):
    folder = here / "configs/experiment/mine"
    folder.mkdir(parents=True)
    (folder / "tolls.yaml").write_bytes((ROOT / "configs/experiment/quickstart/punishment.yaml").read_bytes())
    runs = plan("mine/tolls", ["plugins=[other_research]", "num_seeds=3"], "smoke")
    assert {cfg.num_seeds for cfg in runs.values()} == {3}


def test_the_python_example_of_the_page_runs_and_its_game_keeps_the_promises_of_games(here, capsys):
    here.rename(here.parent / "my_research")
    code = re.findall(r"^In Python:\n\n```python\n(.*?)```", TEXT, re.S | re.M)[0]
    scope = {}
    exec(code, scope)  # the page's own text
    assert capsys.readouterr().out == "4\n"
    conformance.check(scope["game"].env, jax.random.key(0))
    mixed = build.load(
        "plugins=[my_research]", "env=roads", "algo=gradient_bandit", "seats=[0,1,2,3,4,5,6,7,8,random]"
    )
    assert mixed.algo.holder == (0,) * 9 + (1,)
