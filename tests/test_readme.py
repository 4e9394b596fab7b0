"""The README's Python runs and does what it says."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_library_example_learns_to_cooperate_under_a_fine(capsys):
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "import jax" in block)
    scope = {}
    exec(code, scope)  # the README's own text
    rates = scope["seen"][0].events
    last = float(rates["cooperated"][-10:].sum() / (rates["cooperated"] + rates["defected"])[-10:].sum())
    assert last > 0.9
    assert 0 < float(capsys.readouterr().out) <= 1


def test_every_command_of_the_readme_names_what_exists():
    from marl.config import compose

    for line in re.findall(r"^python scripts/train.py (.*)$", README, re.M):
        overrides = [word for word in line.split("#")[0].split() if word != "-m"]
        compose(overrides)
