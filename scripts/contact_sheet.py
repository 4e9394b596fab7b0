"""Draw a picture of every game that draws itself: `python scripts/contact_sheet.py out=docs/games.png`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marl.cli import main, options, whole_number
from marl.validation import ConfigError

USAGE = """
usage: python scripts/contact_sheet.py [out=docs/games.png] [steps=15] [columns=4] [width=300]

  Plays `steps` steps of each game that draws pictures, with a scripted player that fits it where
  there is one, else at random, and puts of each the picture with the most colours on one sheet,
  `width` pixels each.
"""
OPTIONS = {"out": "docs/games.png", "steps": "15", "columns": "4", "width": "300"}
LABEL, MARGIN = 26, 12  # pixels
PLAYERS = (
    "gifter",
    "cleaner",
    "harvester",
    "walker_cleans",
    "walker_hunts_stags",
    "walker_removes",
    "coin_cooperative",
    "random",
)


def contact_sheet(arguments: list[str]) -> int:
    """Write the sheet; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    if rest:
        raise ConfigError([f"{a}: no such option; there are {', '.join(OPTIONS)}" for a in rest])
    sizes = {name: whole_number(name, own[name]) for name in ("steps", "columns", "width")}
    found = list(_pictures(sizes["steps"], sizes["width"]))
    Path(own["out"]).parent.mkdir(parents=True, exist_ok=True)
    _sheet(found, sizes["columns"], sizes["width"]).save(own["out"])
    print(f"{own['out']}: {', '.join(name for name, _ in found)}")
    return 0


def _pictures(steps: int, width: int) -> Iterator[tuple[str, Any]]:
    """(name, picture with the most colours, the last of them) of a preset of each game and map that draws."""
    import jax
    import numpy as np
    from PIL import Image

    from marl.build import build_env, player
    from marl.config import compose, groups
    from marl.environment import Environment
    from marl.evaluate import record

    seen = set()
    for name in groups()["env"]:
        env = build_env(compose([f"env={name}"]))
        kind = type(env), getattr(env, "layout", None)
        if type(env).picture is Environment.picture or kind in seen:
            continue
        seen.add(kind)
        players = (player(one, list(range(env.num_agents))) for one in PLAYERS)
        algo = next(one for one in players if _plays(one, env))
        film = record(env, algo, (), jax.random.key(1), max_steps=steps, greedy=False)
        length = len(jax.tree.leaves(film.state)[0])  # fewer than `steps` where the game ends
        frames = [env.picture(jax.tree.map(lambda x, i=i: x[i], film.state)) for i in range(length)]
        colours = [len(np.unique(frame.reshape(-1, 3), axis=0)) for frame in frames]
        picture = Image.fromarray(frames[max(range(length), key=lambda i: (colours[i], i))])
        height = round(picture.height * width / picture.width)
        yield name, picture.resize((width, height), Image.Resampling.LANCZOS)


def _plays(algo: Any, env: Any) -> bool:
    """Whether a scripted player fits a game."""
    try:
        algo.check(env)
    except ValueError:
        return False
    return True


def _sheet(found: list[tuple[str, Any]], columns: int, width: int) -> Any:
    """The pictures in rows, each under its name."""
    from PIL import Image, ImageDraw, ImageFont

    from marl.render import INK, WHITE

    rows = [found[i : i + columns] for i in range(0, len(found), columns)]
    heights = [max(picture.height for _, picture in row) + LABEL + MARGIN for row in rows]
    sheet = Image.new("RGB", (columns * (width + MARGIN) + MARGIN, sum(heights) + MARGIN), WHITE)
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(16), MARGIN
    for row, height in zip(rows, heights, strict=True):
        for i, (name, picture) in enumerate(row):
            left = MARGIN + i * (width + MARGIN)
            draw.text((left, top), name, INK, font)
            sheet.paste(picture, (left, top + LABEL))
        top += height
    return sheet


if __name__ == "__main__":
    sys.exit(main(USAGE, contact_sheet))
