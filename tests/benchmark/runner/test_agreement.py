import numpy as np
import pytest

from agreement import distance


def test_distance_is_a_share_of_the_norm() -> None:
    truth = np.array([[3.0, 0.0], [0.0, 4.0]])  # norm 5
    assert distance(truth + np.array([[0.0, 0.3], [0.4, 0.0]]), truth) == pytest.approx(0.1)  # norm 0.5
    assert distance(np.zeros(2), np.zeros(2)) == 0


def test_a_large_number_that_all_images_share_does_not_hide_the_others() -> None:
    truth = np.array([[1.0, -1e9, 2.0], [2.0, -1e9, -1.0]], np.float32)
    of_another_image = truth[::-1]
    assert distance(of_another_image, truth) > 1
    assert distance(truth + np.float32(0.001), truth) < 1e-3
    added = truth - np.array([1e4, 0, 0], np.float32)
    assert distance(added[::-1], added) > 1
    other_constant = truth * np.array([1, 2, 1], np.float32)
    assert distance(other_constant, truth) == pytest.approx(1)


def test_saturated_outputs_are_judged_by_what_saturated() -> None:
    softmax = np.array([[1.0, 1e-9], [1.0, 3e-9]], np.float32)  # a third off is what rounding in bf16 makes of 1e-9
    assert distance(softmax * np.array([1, 1.3], np.float32), softmax) < 1e-8


def test_one_image_has_nothing_to_share() -> None:
    assert distance(np.array([[1.0, -1e9]]), np.array([[2.0, -1e9]])) == pytest.approx(1e-9)
