"""What people read at the end of a run."""

import numpy as np

from marl.console import print_summary
from marl.statistics import swept_summary


def test_of_many_swept_values_a_table_has_sixteen_with_the_first_and_the_last(capsys):
    for num, shown in ((40, 16), (16, 16), (3, 3)):
        summary = swept_summary({"score": np.arange(2.0 * num).reshape(num, 2)}, "step", range(num), 0.0)
        print_summary("curve", summary, ["score"])
        text = capsys.readouterr().out
        steps = [int(line.split()[1]) for line in text.splitlines() if line.startswith("│")]
        assert len(steps) == shown
        assert (steps[0], steps[-1]) == (0, num - 1)
        assert np.ptp(np.diff(steps)) <= 1
        assert ("16 of 40 values shown; the files have all" in text) == (num == 40)
