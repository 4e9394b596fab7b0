"""metrics.jsonl holds whole rows only, also when the disk is full or a kill tore a line."""

import errno
import json

import numpy as np

from marl.metrics_log import MetricsLog, read_rows


def row(update, *values):
    metrics = {"reward": np.asarray(values, np.float32)}
    return {
        "update": update,
        "env_steps": 10 * update,
        "agent_steps": 20 * update,
        "wall_s": 0.5,
        "metrics": metrics,
    }


def updates(path):
    return [json.loads(line)["update"] for line in path.read_text().splitlines()]


def test_numbers_survive_exactly_and_what_is_not_finite_becomes_null(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log.append(row(1, 0.1, np.nan))
    log.append(row(2, np.inf, -3.0))
    log.close()
    first, second = read_rows(tmp_path / "m.jsonl")
    assert first["metrics"]["reward"] == [float(np.float32(0.1)), None]
    assert second["metrics"]["reward"] == [None, -3.0]


def test_reopening_drops_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path, 0)
    for update in (1, 2, 3):
        log.append(row(update, 1.0))
    log.close()
    whole = path.read_text()
    path.write_text(whole + '{"update": 4, "met')
    log = MetricsLog(path, 2)
    log.close()
    assert path.read_text() == "".join(f"{line}\n" for line in whole.splitlines()[:2])


def test_a_last_row_that_lacks_only_its_line_end_is_kept(tmp_path):
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path, 0)
    log.append(row(1, 1.0))
    log.close()
    path.write_text(path.read_text().rstrip("\n"))
    log = MetricsLog(path, 9)
    log.append(row(2, 1.0))
    log.close()
    assert updates(path) == [1, 2]


class SmallDisk:
    """A file on a disk with `room` bytes left: what fits is written, then it is full."""

    def __init__(self, file, room, can_truncate):
        self.file, self.room, self.can_truncate = file, room, can_truncate

    def write(self, data):
        part = bytes(data)[: self.room]
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        return self.file.write(part)

    def truncate(self, size):
        if not self.can_truncate:
            raise OSError(errno.EIO, "Input/output error")
        return self.file.truncate(size)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_wait_while_the_disk_is_full_and_no_line_is_torn(tmp_path, capsys):
    for can_truncate in (True, False):
        path = tmp_path / f"{can_truncate}.jsonl"
        log = MetricsLog(path, 0)
        log.append(row(1, 1.0))
        size = path.stat().st_size
        log._file = SmallDisk(log._file, size + size // 2, can_truncate)
        for update in (2, 3, 4):
            log.append(row(update, 1.0))
        assert [r["update"] for r in read_rows(path)] == [1, 2]
        told = capsys.readouterr().out.splitlines()
        assert len(told) == 1
        assert "No space left on device; rows are kept in memory" in told[0]
        log._file.room = 10_000
        log.append(row(5, 1.0))
        log.close()
        assert updates(path) == [1, 2, 3, 4, 5]
        assert [r["update"] for r in log.rows] == [1, 2, 3, 4, 5]


def test_rows_that_never_found_room_are_counted_at_the_end(tmp_path, capsys):
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log._file = SmallDisk(log._file, 0, True)
    log.append(row(1, 1.0))
    log.append(row(2, 1.0))
    log.close()
    assert "the last 2 rows could not be written" in capsys.readouterr().out
    assert (tmp_path / "m.jsonl").read_text() == ""


def test_a_file_of_something_else_has_no_rows(tmp_path):
    (tmp_path / "m.jsonl").write_text("3\nhello\n")
    assert read_rows(tmp_path / "m.jsonl") == []
    assert read_rows(tmp_path / "nowhere") == []
