"""ImageNet's pipeline on a handful of generated JPEG files of different sizes."""

import numpy as np
import pytest

from training import imagenet
from training.config import ImageConfig

pytestmark = pytest.mark.tensorflow

SIZES = [(300, 400), (260, 260), (500, 280), (224, 256), (320, 300)]


@pytest.fixture(scope="module")
def stream():
    import tensorflow as tf

    def jpeg(number, size):
        # Left half dark, right half bright, so that a mirrored image is seen.
        image = np.zeros((*size, 3), "uint8")
        image[:, size[1] // 2 :] = 200
        return tf.io.encode_jpeg(image).numpy()

    files = [jpeg(i, size) for i, size in enumerate(SIZES)]
    labels = np.arange(len(files), dtype="int64")

    def read(split, seed):
        return tf.data.Dataset.from_tensor_slices((files, labels))

    def make(**config):
        config = {"batch_size": 2, "epochs": 2, "dataset": imagenet.NAME, **config}
        counts = {"train": len(files), "validation": 3}
        return imagenet.Stream(read, counts, ImageConfig(**config), "generated JPEG files")

    return make


def epochs(stream, first_epoch, steps=3):
    """The batches as NumPy arrays, in a list for each epoch."""
    batches = list(stream.arguments(first_epoch)["x"].as_numpy_iterator())
    return [batches[i : i + steps] for i in range(0, len(batches), steps)]


def test_an_epoch_has_every_image_once_in_224_by_224_raw_pixels(stream):
    (first, second) = epochs(stream(), 0)
    assert [images.shape for images, _ in first] == [(2, 224, 224, 3)] * 2 + [(1, 224, 224, 3)]
    assert first[0][0].dtype == np.uint8
    assert sorted(np.concatenate([labels for _, labels in second])) == [0, 1, 2, 3, 4]


def test_a_run_that_resumes_sees_the_same_images_and_the_same_crops(stream):
    undisturbed, resumed = epochs(stream(), 0)[1], epochs(stream(), 1)[0]
    for (images, labels), (again, labels_again) in zip(undisturbed, resumed, strict=True):
        np.testing.assert_array_equal(labels, labels_again)
        np.testing.assert_array_equal(images, again)


def test_another_epoch_and_another_seed_have_other_crops(stream):
    first, second = epochs(stream(), 0)
    other = epochs(stream(seed=1), 0)[0]
    by_label = [
        {int(y): x for images, labels in epoch for x, y in zip(images, labels, strict=True)}
        for epoch in (first, second, other)
    ]
    assert not np.array_equal(by_label[0][0], by_label[1][0])
    assert not np.array_equal(by_label[0][0], by_label[2][0])


def test_a_test_image_is_the_middle_of_the_whole_image(stream):
    images = stream().some_inputs(3)
    assert images.shape == (3, 224, 224, 3)
    # JPEG and the resize blur the edge in the middle column only.
    assert np.all(images[:, :, :100] < 20) and np.all(images[:, :, 124:] > 180)


def test_steps_and_examples_are_counted(stream):
    assert stream().steps_per_epoch == 3
    assert stream(examples=2).steps_per_epoch == 1
    assert len(stream(examples=2).some_inputs(256)) == 2


def test_keras_trains_on_the_stream(stream):
    import keras

    model = keras.Sequential(
        [keras.Input((224, 224, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(**stream().arguments(0), epochs=2, verbose=0).history
    assert len(history["loss"]) == len(history["val_loss"]) == 2
