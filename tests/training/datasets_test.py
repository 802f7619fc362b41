import dataclasses
import sys
import types

import numpy as np
import pytest

from training import datasets
from training.config import UserError


def test_digits_are_split_the_same_way_every_time_and_stratified():
    first, second = (datasets.load_images("digits", "nowhere") for _ in range(2))
    np.testing.assert_array_equal(first.test[0], second.test[0])
    assert (len(first.train[0]), len(first.test[0])) == (1437, 360)
    # 174 to 183 of 1,797 digits in each class, a fifth of them in the test split.
    assert set(np.bincount(first.test[1])) <= {35, 36, 37}


def test_digits_are_pixels_of_0_to_255_with_their_statistics():
    images = datasets.load_images("digits", "nowhere")
    assert images.shape == (8, 8, 1) and images.train[0].dtype == np.uint8
    assert images.train[0].max() == 255
    normalized = (images.train[0] / 255 - images.mean[0]) / images.deviation[0]
    np.testing.assert_allclose([normalized.mean(), normalized.std()], [0, 1], atol=1e-6)


def test_diabetes_and_the_sum_of_sines_are_tables():
    inputs, targets = datasets.load_table("diabetes")
    assert inputs.shape == (442, 10) and targets.shape == (442,)
    with pytest.raises(UserError, match="Received: 'boston'"):
        datasets.load_table("boston")


def test_the_sum_of_sines_is_its_formula():
    (x, y), targets = np.transpose(datasets.sum_of_sines(50)[0]), datasets.sum_of_sines(50)[1]
    expected = 0.4 * np.sin(9 * x - 7 * y) + 0.1 * np.sin(-9 * x + 11 * y)
    expected += 0.15 * np.sin(3 * x + 13 * y) + 0.15 * np.sin(9 * x + 9 * y)
    expected += 0.1 * np.sin(13 * x + 5 * y) + 0.1 * np.sin(3 * x + 19 * y)
    # Angles up to 20 in float32 are 1e-6 wide.
    np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_the_signal_is_its_formula():
    inputs, targets = datasets.load_table("signal")
    assert inputs.shape == (1000, 1) and targets.shape == (1000,)
    angle = np.pi * inputs[:, 0]
    expected = np.sin(4 * angle) + np.sin(7 * angle + 1) / 2 + np.sin(13 * angle + 2) / 4
    # Angles up to 43 in float32 are 4e-6 wide.
    np.testing.assert_allclose(targets, expected, atol=1e-5)


def cached(path, name, **changes):
    arrays = {
        "train_images": np.arange(2 * 4 * 4 * 1, dtype="uint8").reshape(2, 4, 4, 1),
        "train_labels": np.array([0, 2], "int32"),
        "test_images": np.zeros((1, 4, 4, 1), "uint8"),
        "test_labels": np.array([1], "int32"),
        "classes": 3,
        "source": f"{name}/1.0.0",
    }
    datasets.write_cache(path / f"{name}.npz", {**arrays, **changes})


def test_a_cached_data_set_needs_no_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # its import fails
    cached(tmp_path, "mnist")
    images = datasets.load_images("mnist", str(tmp_path))
    assert (images.classes, images.source, images.shape) == (3, "mnist/1.0.0", (4, 4, 1))
    assert (images.mean, images.deviation, images.augmentation) == (
        (0.1307,),
        (0.3081,),
        "rotation",
    )
    assert [len(array) for array in images.first(1).train] == [1, 1]


def test_a_data_set_without_a_recipe_is_normalized_by_its_own_pixels(tmp_path):
    pixels = np.zeros((2, 4, 4, 2), "uint8")
    pixels[0, ..., 0] = 255  # half of the first channel; the second is constant
    cached(tmp_path, "other", train_images=pixels)
    images = datasets.load_images("other", str(tmp_path))
    assert (images.mean, images.deviation, images.augmentation) == ((0.5, 0.0), (0.5, 1.0), "none")


def test_a_cache_is_written_beside_and_renamed(tmp_path):
    cached(tmp_path / "new", "mnist")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mnist.npz"]


def test_a_damaged_cache_says_what_to_do(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match="mnist.npz is damaged: delete it"):
        datasets.load_images("mnist", str(tmp_path))


COMMAND = "python -m training.datasets --dataset=mnist --data_dir={} --download"


def test_without_tensorflow_datasets_the_error_says_what_to_run_where(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(datasets.MissingDataset) as error:
        datasets.load_images("mnist", str(tmp_path))
    assert COMMAND.format(tmp_path) in str(error.value)
    assert "copy mnist.npz" in str(error.value)


@pytest.fixture
def tfds(tmp_path, monkeypatch):
    """A stand-in of TensorFlow Datasets, which knows "mnist", not yet prepared."""

    class NotFound(ValueError):
        pass

    labels = types.SimpleNamespace(num_classes=3)
    builder = types.SimpleNamespace(
        ready=False,
        info=types.SimpleNamespace(
            full_name="mnist/9.9.9",
            splits={"train": None, "test": None},
            supervised_keys=("image", "label"),
            features={"image": types.SimpleNamespace(shape=(2, 2, 1)), "label": labels},
        ),
        as_dataset=lambda split, **_: (np.ones((3, 2, 2, 1), "uint8"), np.array([0, 1, 2])),
    )
    builder.is_prepared = lambda: builder.ready
    builder.download_and_prepare = lambda: setattr(builder, "ready", True)

    def find(name, **_):
        if name != "mnist":
            raise NotFound(name)
        return builder

    stand_in = types.SimpleNamespace(
        builder=find,
        as_numpy=lambda arrays: arrays,
        core=types.SimpleNamespace(DatasetNotFoundError=NotFound),
        made=builder,
    )
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    return stand_in


def test_a_missing_data_set_says_the_command_that_gets_it(tfds, tmp_path):
    with pytest.raises(datasets.MissingDataset) as error:
        datasets.load_images("mnist", str(tmp_path))
    assert str(error.value).endswith("This gets it:\n    " + COMMAND.format(tmp_path))


def test_what_only_the_user_can_get_is_said_without_a_traceback(tfds, tmp_path):
    def download():
        raise AssertionError("Manual directory … should contain two files: …")

    tfds.made.download_and_prepare = download
    with pytest.raises(datasets.MissingDataset, match="mnist is not in .*should contain two files"):
        datasets.load_images("mnist", str(tmp_path), download=True)


def test_a_downloaded_data_set_becomes_arrays_once(tfds, tmp_path):
    images = datasets.load_images("mnist", str(tmp_path), download=True)
    assert (len(images.train[0]), images.source) == (3, "mnist/9.9.9")
    assert images.train[1].dtype == np.int32
    tfds.made.as_dataset = None  # not read again
    assert len(datasets.load_images("mnist", str(tmp_path)).test[0]) == 3


def test_an_unknown_name_is_an_error_with_the_catalogue(tfds, tmp_path):
    with pytest.raises(UserError, match="tensorflow.org/datasets/catalog. Received: 'mnits'"):
        datasets.load_images("mnits", str(tmp_path))


def test_images_that_differ_in_size_are_an_error(tfds, tmp_path):
    tfds.made.info.features["image"].shape = (None, None, 3)
    with pytest.raises(UserError, match=r"differ in size.*\(None, None, 3\)"):
        datasets.load_images("mnist", str(tmp_path), download=True)


def test_a_data_set_of_something_else_is_an_error(tfds, tmp_path):
    tfds.made.info.supervised_keys = ("text", "label")
    with pytest.raises(UserError, match=r"needs a data set of \(image, label\)"):
        datasets.load_images("mnist", str(tmp_path), download=True)


def test_generated_images_have_the_shape_of_what_is_missing_and_say_so():
    images = datasets.generated_images("cifar10", 5)
    assert images.train[0].shape == images.test[0].shape == (5, 32, 32, 3)
    assert (images.classes, images.augmentation) == (10, "crop_and_flip")
    assert images.source == "generated noise, not cifar10"


def images_of(counts):
    """One-pixel images, numbered, whose classes come in turn while they last."""
    labels = [c for i in range(max(counts)) for c, count in enumerate(counts) if i < count]
    pixels = np.arange(len(labels), dtype="uint8").reshape(-1, 1, 1, 1)
    arrays = (pixels, np.array(labels, "int32"))
    return datasets.Images(arrays, arrays, len(counts), (0.5,), (0.5,), "none", "numbered")


def test_cifar10_lt_has_the_numbers_of_images_that_everybody_has():
    labels = np.repeat(np.arange(10, dtype="int32"), 5000)
    images = datasets.Images(
        (labels.reshape(-1, 1, 1, 1), labels), (labels, labels), 10, (), (), "none", "counted"
    )
    counts = np.bincount(images.long_tailed(100).train[1]).tolist()
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert np.bincount(images.long_tailed(10).train[1])[-1] == 500


def test_a_long_tail_keeps_the_first_of_each_class_in_order_and_the_whole_test_set():
    images = images_of((5, 4, 4))
    tailed = images.long_tailed(4.0)  # of 4 images 4, 2 and 1
    np.testing.assert_array_equal(tailed.train[1], [0, 1, 2, 0, 1, 0, 0])
    np.testing.assert_array_equal(tailed.train[0].ravel(), [0, 1, 2, 3, 4, 6, 9])
    assert tailed.test is images.test and images.long_tailed(1.0) is images


@pytest.mark.parametrize("factor", [0.5, 0.0, -1.0, float("inf"), float("nan")])
def test_an_imbalance_below_one_is_an_error(factor):
    with pytest.raises(UserError, match=f"number >= 1. Received: imbalance={factor}"):
        images_of((2, 2)).long_tailed(factor)


def test_a_long_tail_leaves_an_image_of_each_class_that_has_one():
    assert np.bincount(images_of((5, 4, 4)).long_tailed(1e6).train[1]).tolist() == [4, 1, 1]
    empty = dataclasses.replace(images_of((5, 4)), classes=3)
    assert np.bincount(empty.long_tailed(2).train[1]).tolist() == [1, 1]
