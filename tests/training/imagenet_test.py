"""ImageNet's pipeline on a handful of generated JPEG files of different sizes."""

import json

import numpy as np
import pytest

from training import datasets, image_classification, imagenet
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


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder where TensorFlow Datasets finds its imagenet2012, with five and three images."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("datasets")
    builder = tfds.builder(imagenet.NAME, data_dir=folder, try_gcs=False)
    random = np.random.default_rng(0)

    def examples(count):
        for number, size in enumerate(SIZES[:count]):
            image = random.integers(0, 256, (*size, 3), "uint8")
            yield {"file_name": f"{number}.JPEG", "image": image, "label": 100 * number}

    def written(count):
        signature = {
            "file_name": tf.TensorSpec((), tf.string),
            "image": tf.TensorSpec((None, None, 3), tf.uint8),
            "label": tf.TensorSpec((), tf.int64),
        }
        return tf.data.Dataset.from_generator(
            lambda: examples(count), output_signature=signature
        ).apply(tf.data.experimental.assert_cardinality(count))

    tfds.dataset_builders.store_as_tfds_dataset(
        name=imagenet.NAME,
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={"train": written(5), "validation": written(3)},
        data_dir=folder,
    )
    return folder


def test_a_network_is_trained_on_imagenet_as_tensorflow_datasets_keeps_it(data_dir, tmp_path):
    config = ImageConfig(
        dataset=imagenet.NAME,
        network="lenet",
        activation="pau",
        batch_size=2,
        epochs=1,
        examples=4,
        quick=True,
        data_dir=str(data_dir),
    )
    metrics = image_classification.train(config, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["dataset"] == "imagenet2012/5.1.0" and result["metrics"] == metrics
    # LeNet on three channels, for 1,000 classes: 300 weights more in the first convolution, and
    # 85 for each of 990 classes more.
    assert metrics["parameters"] == 61_746 + 300 + 85 * 990
    # Of three images.
    assert metrics["final_top5_accuracy"] in (0, *(pytest.approx(n / 3) for n in (1, 2, 3)))
    assert not metrics["diverged"]
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2 and "val_top5_accuracy" in rows[0]


def test_imagenet_from_tensorflow_datasets_is_read_in_another_order_each_epoch(data_dir):
    config = ImageConfig(dataset=imagenet.NAME, batch_size=5, epochs=4, data_dir=str(data_dir))
    facts, stream = imagenet.load(config)
    assert (facts.classes, facts.shape, stream.steps_per_epoch) == (1000, (224, 224, 3), 1)
    orders = [tuple(labels) for _, labels in stream.arguments(0)["x"].as_numpy_iterator()]
    assert {tuple(sorted(order)) for order in orders} == {(0, 100, 200, 300, 400)}
    # Four orders of 120: that all are the same has a chance of 120^-3.
    assert len(set(orders)) > 1
    # A run that resumes at epoch 3 sees them as this one did.
    resumed = [tuple(labels) for _, labels in stream.arguments(3)["x"].as_numpy_iterator()]
    assert resumed == orders[3:]


def test_imagenet_that_is_not_there_is_an_error_that_says_which_files_to_get(tmp_path):
    missing = ImageConfig(dataset=imagenet.NAME, data_dir=str(tmp_path), download=True)
    with pytest.raises(datasets.MissingDataset, match="ILSVRC2012_img_train.tar"):
        imagenet.load(missing)
