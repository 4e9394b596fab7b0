"""Every figure's smoke scale meets its claims."""

import pytest

from marl.config import groups
from marl.experiment import run_experiment


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", groups()["experiment"])
def test_the_claims_of_the_smoke_scale_are_met(name, tmp_path):
    outcome = run_experiment(name, [], "smoke", tmp_path)
    assert outcome.exit_code == 0
    assert [claim.line() for claim in outcome.claims if not claim.met] == []
    assert outcome.claims
