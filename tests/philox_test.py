"""The generator against its authors' published vectors, and the draws it gives."""

import numpy as np
import pytest
from keras import ops

from keras_learnact.philox import philox, symmetric_uniform


def int32(words):
    return [np.array(w, "uint32").astype("int32") for w in words]


@pytest.mark.parametrize(
    "counter, key, block",
    [  # Random123's kat_vectors, philox4x32-10
        (
            [0, 0, 0, 0],
            [0, 0],
            [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        ),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_a_block_equals_the_published_vector(counter, key, block):
    words = philox(int32(counter), int32(key))
    assert [int(ops.convert_to_numpy(w)) & 0xFFFFFFFF for w in words] == block


def draws(shape=(400, 50), count=10, key=(1, 2)):
    key = np.array(key, "uint32")
    return np.stack(
        [ops.convert_to_numpy(d) for d in symmetric_uniform(shape, count, key, "float32")]
    )


def test_draws_are_uniform_and_centred():
    u = draws()  # 200,000 numbers
    assert abs(u).max() == 4095 / 4096
    assert abs(u.mean()) < 0.006  # 4.6 standard errors of sqrt(1/3 / 200000)
    assert abs(u.var() - 1 / 3) < 0.004  # likewise, of sqrt(4/45 / 200000)
    counts, _ = np.histogram(u, bins=64, range=(-1, 1))
    # χ² with 63 degrees of freedom: 120 is beyond the 99.999 % point.
    assert ((counts - 3125) ** 2 / 3125).sum() < 120


def test_draws_of_different_coefficients_and_neighbours_are_uncorrelated():
    u = draws().reshape(10, -1)
    correlation = np.corrcoef(np.concatenate([u, np.roll(u, 1, axis=1)]))
    assert abs(correlation - np.eye(20)).max() < 0.035  # 5 standard errors of 1/sqrt(20000)


def test_an_element_keeps_its_draw_whatever_the_shape():
    np.testing.assert_array_equal(draws((6, 4)).reshape(10, 24), draws((24,)))


def test_a_twelfth_coefficient_takes_a_second_block():
    u = draws((7,), count=12)
    np.testing.assert_array_equal(u[:10], draws((7,)))
    assert not np.isin(u[10:], u[:2]).any()


def test_the_key_changes_every_draw():
    assert (draws((100,)) == draws((100,), key=(1, 3))).mean() < 0.01


def test_no_elements_give_no_draws():
    assert draws((0, 3)).shape == (10, 0, 3)
