"""A stand-in for the wandb module: a server that keeps rows by run id, and every way of failing."""

import time


class FakeWandb:
    """Put it into sys.modules["wandb"]; `online` and `offline` hold {id: {step: row}}."""

    run = None  # the user's own run

    def __init__(self, fails=(), fails_after=None, log_fails_at=None, finish_s=0.0):
        self.fails_after, self.in_use = fails_after, set()
        self.fails, self.log_fails_at, self.finish_s = fails, log_fails_at, finish_s
        self.online, self.offline = {}, {}
        self.tried, self.begun, self.finished, self.teardowns = [], [], 0, 0

    def Settings(self, **options):  # noqa: N802 (its name in wandb)
        return options

    def setup(self, settings):
        assert settings["silent"]

    def init(self, **options):
        self.tried.append(options["mode"])
        if options["id"] in self.in_use:
            raise ValueError("run ID is in use")
        if options["mode"] in self.fails or len(self.begun) == self.fails_after:
            self.in_use.add(options["id"])  # as W&B does
            raise ConnectionError("no network")
        run = FakeRun(self, options)
        self.begun.append(run)
        return run

    def teardown(self):
        self.teardowns += 1
        self.in_use.clear()


class FakeRun:
    """One W&B run; a step that it has already is an error here."""

    def __init__(self, world, options):
        self.world, self.options = world, options
        known = world.online if options["mode"] == "online" else {}
        self.rows = known.setdefault(options["id"], {})
        world.offline.setdefault(options["id"], []).append(self.rows) if known is not world.online else None
        self.metrics = []

    @property
    def step(self):
        return max(self.rows, default=-1) + 1

    def define_metric(self, name, step_metric=None):
        self.metrics.append((name, step_metric))

    def log(self, row, step):
        if self.world.log_fails_at == step:
            raise BrokenPipeError("helper is gone")
        assert step not in self.rows
        self.rows[step] = row

    def finish(self):
        time.sleep(self.world.finish_s)
        self.world.finished += 1
