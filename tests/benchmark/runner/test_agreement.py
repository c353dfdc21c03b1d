import numpy as np
import pytest

from agreement import distance


def test_distance_is_a_share_of_the_norm() -> None:
    truth = np.array([[3.0, 0.0], [0.0, 4.0]])  # norm 5
    assert distance(truth + np.array([[0.0, 0.3], [0.4, 0.0]]), truth) == pytest.approx(0.1)  # norm 0.5
    assert distance(np.zeros(2), np.zeros(2)) == 0
