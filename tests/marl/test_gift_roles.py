import numpy as np

from marl.gift_roles import by_role


def test_seats_are_ordered_by_what_they_did():
    done = np.array([[1.0, 3.0, 0.0]])
    weights = np.array([[[0.5, 0.5, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]]])  # giver, taker
    found = by_role(done, weights)
    assert {name: x.tolist() for name, x in found.items() if name.startswith("share")} == {
        "share/0": [0.75],
        "share/1": [0.25],
        "share/2": [0.0],
    }
    np.testing.assert_allclose(found["incoming/0"], 0.8)  # of .5 and .3, to the seat numbered 1
    np.testing.assert_allclose(found["incoming/1"], 0.1)
    np.testing.assert_allclose(found["incoming/2"], 0.2)
    np.testing.assert_allclose(found["incoming_lead"], 0.6)
    assert found["weight/0_to_1"].tolist() == [0.1]
    assert found["weight/1_to_0"].tolist() == [0.5]
