"""Boards, charts and text as pictures, and pictures as a film; knows no game.

Pillow is imported only where text or a film is made. Pictures are uint8 [height, width, 3], RGB.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marl.checkpoint import write_atomically

RED, BLUE, GREEN = (214, 57, 57), (38, 98, 196), (46, 139, 87)
WHITE, PAPER, LINE, INK = (255, 255, 255), (250, 249, 246), (200, 198, 192), (35, 35, 38)
PALETTE = (  # of seats, and of actions and codes
    RED,
    BLUE,
    GREEN,
    (230, 159, 0),
    (125, 91, 166),
    (86, 180, 233),
    (204, 121, 167),
    (120, 94, 60),
    (90, 90, 95),
    (170, 190, 60),
)
MIN_CELL, BOARD = 24, 240  # pixels of a cell at least, and of a small board's side
TINT = 0.35  # share of the colour in a tinted ground
MIN_WIDTH = 330  # pixels of a film, for its text
LINE_HEIGHT, FONT_SIZE, SWATCH, MARGIN = 17, 13, 10, 8  # pixels
MAX_SEATS_SHOWN, MAX_STEPS_SHOWN = 8, 30
MAX_COLOURS = 64  # of a film


Colour = tuple[int, int, int]


class Thing(NamedTuple):
    """Something on a board. Fields: row, column; colour; kind, one of SHAPES or KINDS_OF_AVATARS."""

    row: int
    column: int
    colour: Colour
    kind: str


def board(
    num_rows: int,
    num_columns: int,
    things: Iterable[Thing],
    tints: Iterable[tuple[int, int, Colour]] = (),
) -> np.ndarray:
    """A board with grid lines, uint8 [height, width, 3]; things that share a cell stand side by side.

    What is of a kind in GROUND lies under the others. `tints` are (row, column, colour) of cells whose
    paper has a light shade of the colour, the last one if there are several.
    """
    cell = max(MIN_CELL, BOARD // max(num_rows, num_columns))
    image = np.full((num_rows * cell + 1, num_columns * cell + 1, 3), PAPER, np.uint8)
    image[::cell], image[:, ::cell] = LINE, LINE
    for row, column, colour in tints:
        shade = [int((1 - TINT) * ground + TINT * c) for ground, c in zip(PAPER, colour, strict=True)]
        image[row * cell + 1 : (row + 1) * cell, column * cell + 1 : (column + 1) * cell] = shade
    places: dict[tuple[int, int], list[Thing]] = {}
    for thing in things:
        places.setdefault((int(thing.row), int(thing.column)), []).append(thing)
    for (row, column), here in places.items():
        stand = [thing for thing in here if thing.kind not in GROUND]
        for thing in here:
            if thing.kind in GROUND:
                _paint(image[row * cell + 1 :, column * cell + 1 :][: cell - 1, : cell - 1], thing)
        rows = int(np.ceil(np.sqrt(max(len(stand), 1))))
        part = (cell - 1) // rows
        for i, thing in enumerate(stand):
            place = 3 * i if len(stand) == 2 else i  # two stand on the diagonal
            top = row * cell + 1 + place // rows * part
            left = column * cell + 1 + place % rows * part
            _paint(image[top : top + part, left : left + part], thing)
    return image


def _paint(area: np.ndarray, thing: Thing) -> None:
    """Draw a thing into its part of a board, [side, side, 3], in place."""
    side = area.shape[0]
    y, x = (np.indices((side, side)) + 0.5) / side * 2 - 1  # -1 .. 1, y down
    if thing.kind in KINDS_OF_AVATARS:  # a body that looks north, turned
        for _ in range(KINDS_OF_AVATARS.index(thing.kind)):
            y, x = -x, y
        area[np.hypot(x, y) < 0.82] = thing.colour
        area[np.hypot(abs(x) - 0.36, y + 0.3) < 0.27] = WHITE
        area[np.hypot(abs(x) - 0.36, y + 0.38) < 0.14] = INK
        return
    area[SHAPES[thing.kind](x, y)] = thing.colour
    if thing.kind == "token":
        area[abs(x + 0.2) + abs(y + 0.2) < 0.25] = WHITE
    if thing.kind == "apple":
        area[(abs(x - 0.05 + y * 0.2) < 0.08) & (y > -0.9) & (y < -0.4)] = INK
    if thing.kind == "wall":  # bricks
        row = np.floor((y + 1) * 2)
        joint = (abs((y + 1) * 2 - row) < 0.16) | (abs((x + 1 + row % 2) % 1.0) < 0.1)
        area[joint] = tuple(int(0.75 * c) for c in thing.colour)


# where a thing is, from x and y in -1 .. 1, y down
SHAPES = {
    "disc": lambda x, y: np.hypot(x, y) < 0.78,
    "ring": lambda x, y: (np.hypot(x, y) >= 0.3) & (np.hypot(x, y) < 0.6),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.9,
    "wall": lambda x, y: np.full(x.shape, True),
    "water": lambda x, y: abs((y + 0.12 * np.sin(6 * x) + 1) % 0.66 - 0.33) < 0.24,
    "dirt": lambda x, y: (
        (np.hypot(x + 0.4, y + 0.3) < 0.4)
        | (np.hypot(x - 0.35, y) < 0.45)
        | (np.hypot(x + 0.2, y - 0.5) < 0.35)
    ),
    "apple": lambda x, y: np.hypot(x, y - 0.15) < 0.6,
    "token": lambda x, y: abs(x) + abs(y) < 0.7,
    "hare": lambda x, y: (
        (np.hypot(x, y - 0.35) < 0.5)  # head, under two ears
        | (np.hypot((abs(x) - 0.27) * 2.4, y + 0.4) < 0.48)
    ),
    "stag": lambda x, y: (
        (np.hypot(x * 1.5, y - 0.4) < 0.5)  # head, under two antlers with a branch each
        | ((abs(abs(x) - 0.2 + 0.4 * y) < 0.12) & (y > -0.9) & (y < 0.2))
        | ((abs(abs(x) - 0.25 - 0.4 * (y + 0.2)) < 0.1) & (y > -0.6) & (y < -0.1))
    ),
    "snow": lambda x, y: (np.hypot(x, y - 0.7) < 0.85) & (y < 0.7),
}
GROUND = ("wall", "water", "dirt")  # kinds on which others stand
KINDS_OF_AVATARS = ("avatar_n", "avatar_e", "avatar_s", "avatar_w")


def grid_view(grid: np.ndarray) -> np.ndarray:
    """What one seat sees, uint8 codes [H, W, L], as a board: a colour for each code of each layer."""
    found = [(layer, grid[..., layer].max()) for layer in range(grid.shape[-1])]
    first = np.cumsum([0, *(int(most) for _, most in found)])
    things = [
        Thing(row, column, PALETTE[(first[layer] + grid[row, column, layer] - 1) % len(PALETTE)], "square")
        for row, column, layer in np.argwhere(grid)
    ]
    return board(*grid.shape[:2], things)


def with_text(picture: np.ndarray, lines: Sequence[tuple[Colour | None, str]]) -> np.ndarray:
    """The picture on white, centred, with lines of text under it, each behind a swatch or none."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    size = max(MIN_WIDTH, width + 2 * MARGIN), height + LINE_HEIGHT * len(lines) + 3 * MARGIN
    image = Image.new("RGB", size, WHITE)
    image.paste(Image.fromarray(picture), ((size[0] - width) // 2, MARGIN))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for i, (colour, line) in enumerate(lines):
        top = height + 2 * MARGIN + i * LINE_HEIGHT
        if colour:
            draw.rectangle((MARGIN, top + 3, MARGIN + SWATCH, top + 3 + SWATCH), colour)
        draw.text((2 * MARGIN + SWATCH if colour else MARGIN, top), line, INK, font)
    return np.asarray(image)


def write_gif(frames: Sequence[np.ndarray], path: Path, frames_per_s: float) -> None:
    """Write pictures uint8 [height, width, 3] of one size as a film that repeats for ever.

    Raises:
        ValueError: without any picture.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("a film needs at least one picture")
    images = [Image.fromarray(frame).quantize(MAX_COLOURS) for frame in frames]
    content = io.BytesIO()
    rest = {"append_images": images[1:], "duration": round(1000 / frames_per_s), "loop": 0}
    images[0].save(content, "GIF", save_all=True, **rest)
    write_atomically(path, content.getvalue())
