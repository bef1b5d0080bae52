"""Components, boxes and border shares against hand-made masks."""

import numpy as np
import pytest
import torch

from sempart_core import SempartError, regions


def picture(text):
    return np.array([[c == "#" for c in line] for line in text.split()])


DIAGONAL = picture("""
    ##...
    ##...
    ..#..
    ....#
    ...##
""")


def test_connectivity_decides_whether_a_diagonal_joins():
    assert regions.components(DIAGONAL, 4).max() == 3
    assert regions.components(DIAGONAL, 8).max() == 2
    assert regions.areas(regions.components(DIAGONAL, 8)).tolist() == [5, 3]


@pytest.mark.parametrize("seed", [4, (0, 4)])
def test_a_seed_outside_the_mask_has_no_component(seed):
    assert not regions.component_of(DIAGONAL, seed).any()


@pytest.mark.parametrize("seed", [24, (4, 4)])
def test_component_of_the_seed(seed):
    assert np.array_equal(np.argwhere(regions.component_of(DIAGONAL, seed)), [[3, 4], [4, 3], [4, 4]])


def test_largest_component_and_its_tie():
    assert np.array_equal(np.argwhere(regions.largest_component(DIAGONAL)), [[0, 0], [0, 1], [1, 0], [1, 1]])
    two = picture("#.# ...")
    assert regions.largest_component(two)[0].tolist() == [True, False, False]
    assert not regions.largest_component(np.zeros((3, 4))).any()


def test_boxes_are_exclusive_scaled_and_clipped():
    assert regions.box_of(picture(".... .##. ....")).tolist() == [1, 1, 3, 2]
    assert regions.box_of(picture(".... .### ...#"), patch=8, size=(20, 30)).tolist() == [8, 8, 30, 20]
    assert regions.box_of(np.zeros((2, 2))) is None


def test_boxes_of_all_components_largest_first():
    boxes = regions.boxes_of(DIAGONAL)
    assert boxes.tolist() == [[0, 0, 2, 2], [3, 3, 5, 5], [2, 2, 3, 3]]
    assert regions.boxes_of(DIAGONAL, min_area=2).shape == (2, 4)
    assert regions.boxes_of(np.zeros((3, 3))).shape == (0, 4)


def test_a_box_holds_its_mask_and_nothing_of_it_lies_outside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((9, 13)) > 0.9
        if not mask.any():
            continue
        x0, y0, x1, y1 = regions.box_of(mask).astype(int)
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()


def test_tensors_are_welcome():
    assert regions.components(torch.from_numpy(DIAGONAL)).max() == 3


def test_erosion_keeps_the_image_border_and_dilation_undoes_it_on_a_diamond():
    full = np.ones((4, 4))
    assert regions.erode(full, 3).all()
    dot = np.zeros((7, 7))
    dot[3, 3] = 1
    diamond = regions.dilate(dot, 2)
    assert diamond.sum() == 13
    assert np.array_equal(regions.erode(diamond, 2), dot.astype(bool))


def test_border_shares_sum_to_one():
    values, shares = regions.border_fraction(picture("##. ... ..."))
    assert values.tolist() == [False, True]
    assert shares.tolist() == [9 / 12, 3 / 12]  # the corner is counted by both its sides


def test_boundary_length_counts_sides_between_inside_and_outside():
    square = np.zeros((6, 6))
    square[1:4, 1:4] = 1
    assert regions.boundary_length(square) == regions.boundary_length(1 - square) == 12
    assert regions.boundary_length(square[1:, 1:]) == 6  # two of its sides lie on the border now
    holed = square.copy()
    holed[2, 2] = 0
    assert regions.boundary_length(holed) == 16
    assert regions.boundary_length(np.ones((3, 3))) == 0
    assert regions.outline_ratio(holed, square) == 16 / 12
    assert regions.outline_ratio(square, np.ones((3, 3))) == 12  # a truth without an outline


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: regions.components(np.zeros((2, 2, 2))), "two dimensions"),
        (lambda: regions.components(DIAGONAL, 6), "4 or 8"),
        (lambda: regions.component_of(DIAGONAL, 25), "outside the grid"),
        (lambda: regions.component_of(DIAGONAL, (-1, 0)), "outside the grid"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(SempartError, match=words):
        call()
