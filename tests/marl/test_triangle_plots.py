import json

import numpy as np
import pytest
from PIL import Image

from marl.triangle_plots import curves_and_triangle, positions


def test_a_corner_is_one_share_and_the_middle_all_alike():
    found = positions(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1 / 3, 1 / 3, 1 / 3]]))
    height = 3**0.5 / 2
    np.testing.assert_allclose(found, [[0, 0], [1, 0], [0.5, height], [0.5, height / 3]], atol=1e-12)


def test_panels_of_curves_shares_and_bars_are_drawn(tmp_path):
    (tmp_path / "a").mkdir()
    shares = {"red": [0.2, 0.6], "green": [0.3, 0.3], "blue": [0.5, 0.1]}  # of two seeds
    rows = [{"update": i, "env_steps": 10 * i, "metrics": {"reward": [0.1, i], **shares}} for i in (1, 2)]
    (tmp_path / "a" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    end = {"mean": 0.5, "low": 0.4, "high": 0.7}
    curves_and_triangle(
        summaries={"a": {"metrics": {"red": end, "blue": end}}},
        path=tmp_path / "figure.png",
        title="one run",
        columns=2,
        labels={"a": "one", "gone": "none"},
        curves=[{"metric": "reward", "label": "reward"}, {"metric": "none", "label": "nothing"}],
        corners={name: name for name in shares},
        bars={"red": "red", "blue": "blue"},
        bars_label="hits",
    )
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (pytest.approx(7.2 * 110, abs=1), pytest.approx(6.8 * 110, abs=1))
