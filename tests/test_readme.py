"""The README's Python runs and does what it says; what README and docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXPERIMENTS = ROOT / "configs" / "experiment"


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_and_figures_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, f"{page}: {link}"
    papers = "|".join(folder.name for folder in EXPERIMENTS.iterdir())
    for name in re.findall(rf"(?:`|figure.py )((?:{papers})/[a-z]\w+)", text):
        assert (EXPERIMENTS / f"{name}.yaml").exists(), f"{page}: {name}"


def test_every_paper_is_in_the_list_of_reproductions():
    listed = set(re.findall(r"`(\w+)/`", (ROOT / "docs" / "reproductions.md").read_text()))
    assert listed == {folder.name for folder in EXPERIMENTS.iterdir()}
