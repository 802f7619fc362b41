import keras
import numpy as np
import pytest

from training.augmentation import CropAndFlip, Rotation, augmentation
from training.config import UserError

# One bright pixel in the middle row, one step from the middle column.
IMAGE = np.zeros((1, 9, 9, 1), "float32")
IMAGE[0, 4, 6] = 1


def many(layer, images=IMAGE, count=2000):
    return np.asarray(layer(np.repeat(images, count, axis=0), training=True))


@pytest.mark.parametrize("layer", [Rotation(30), CropAndFlip(4)])
def test_outside_of_training_nothing_moves(layer):
    np.testing.assert_array_equal(np.asarray(layer(IMAGE)), IMAGE)
    np.testing.assert_array_equal(np.asarray(layer(IMAGE, training=False)), IMAGE)


def test_rotation_by_0_degrees_is_the_identity():
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("float32")
    np.testing.assert_array_equal(np.asarray(Rotation(0)(images, training=True)), images)


def test_rotation_keeps_the_middle_and_turns_the_rest_by_up_to_its_limit():
    image = np.zeros((1, 21, 21, 1), "float32")
    image[0, 10, 10] = 1
    assert np.all(many(Rotation(30), image)[:, 10, 10] == 1)
    image[0, 10, 20] = 1  # 10 pixels right of the middle
    rows, columns = np.nonzero(many(Rotation(30), image).sum((0, 3)))
    far = columns > 14
    degrees = np.degrees(np.arctan2(rows[far] - 10, columns[far] - 10))
    # A pixel at radius 10 is 5.7 degrees wide.
    assert -36 < degrees.min() < -24 and 24 < degrees.max() < 36


def test_each_image_of_a_batch_moves_by_itself():
    assert len(np.unique(many(CropAndFlip(4)).reshape(2000, -1), axis=0)) > 50


def test_crop_moves_by_up_to_its_padding_and_flip_mirrors_half():
    moved = many(CropAndFlip(2))[..., 0]
    rows = sorted(set(np.nonzero(moved)[1]))
    columns, counts = np.unique(np.nonzero(moved)[2], return_counts=True)
    assert rows == [2, 3, 4, 5, 6]
    # Column 6 moves to 4 … 8, or mirrored from column 2 to 0 … 4.
    assert columns.tolist() == list(range(9))
    # Each of 10 equally often but column 4, which is reached both ways: 200 of 2,000, and the
    # standard deviation of such a count is 13.
    assert np.all(np.abs(counts - np.array([200] * 4 + [400] + [200] * 4)) < 80)


def test_what_comes_in_from_outside_is_0():
    moved = many(CropAndFlip(4), np.ones((1, 8, 8, 3), "float32"))
    assert set(np.unique(moved)) == {0, 1}


def test_the_state_of_the_generator_is_a_variable_and_gives_the_draws_again():
    layer = Rotation(30, seed=3)
    state = layer.variables[0]
    before = np.asarray(state.value)
    first = many(layer, count=5)
    assert not np.array_equal(first, many(layer, count=5))
    state.assign(before)
    np.testing.assert_array_equal(first, many(layer, count=5))


def test_augmentation_compiles_in_a_training_step():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *augmentation("rotation", 0), *augmentation("crop_and_flip", 0)]
        + [keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=True)
    x = np.ones((6, 8, 8, 1), "uint8")
    history = model.fit(x, np.zeros(6), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_an_unknown_augmentation_is_an_error():
    with pytest.raises(UserError, match="crop_and_flip.*Received: 'blur'"):
        augmentation("blur", 0)
