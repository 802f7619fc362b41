"""Data sets by name: from scikit-learn, from a formula, or from TensorFlow Datasets.

A data set of TensorFlow Datasets is turned once into `<data_dir>/<name>.npz`. From then on
neither TensorFlow nor TensorFlow Datasets is needed: copy that file to where you train.

    python -m training.datasets --dataset=cifar10 --data_dir=DIR --download

gets one and makes its file. ImageNet does not fit in memory: see `training.imagenet`.
"""

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging

from keras_learnact.files import written
from training.config import UserError

# scikit-learn has no split of its own: a fixed one, stratified by class.
DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2


class Recipe(NamedTuple):
    """How the papers' programs feed a data set: pixel statistics as fractions of 255."""

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    augmentation: str


# Any other data set: its own statistics, computed from its training images, and no augmentation.
RECIPES = {
    "mnist": Recipe((28, 28, 1), 10, (0.1307,), (0.3081,), "rotation"),
    "fashion_mnist": Recipe((28, 28, 1), 10, (0.1307,), (0.3081,), "rotation"),
    "cifar10": Recipe(
        (32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "crop_and_flip"
    ),
    # Augmented while its images still differ in size, see `training.imagenet`.
    "imagenet2012": Recipe(
        (224, 224, 3), 1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "none"
    ),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """Raw pixels, uint8 `[n, height, width, channels]`, with their classes, int32 `[n]`."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    augmentation: str
    source: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.train[0].shape[1:]

    def first(self, examples: int | None) -> "Images":
        """The same with at most so many training and test images."""
        train = tuple(array[:examples] for array in self.train)
        test = tuple(array[:examples] for array in self.test)
        return dataclasses.replace(self, train=train, test=test)

    def long_tailed(self, factor: float) -> "Images":
        """The same with fewer and fewer training images of each class; the test set stays.

        Of C classes the i-th, i = 0 … C - 1, keeps its first n factor^(-i / (C - 1)) images, n
        being what the rarest has before, and at least one: the exponential profile of Cao, Wei,
        Gaidon, Arechiga, Ma: Learning Imbalanced Datasets with Label-Distribution-Aware Margin
        Loss, NeurIPS 2019.
        CIFAR-10 with the factor 100 is their CIFAR-10-LT: 5000, 2997, 1796, … 50 images.

        Args:
            factor: >= 1, how many times as many images the first class has as the last.

        Errors: a `UserError` for another factor.
        """
        if not 1 <= factor < math.inf:
            raise UserError(f"The imbalance must be a number >= 1. Received: imbalance={factor}")
        if factor == 1:
            return self
        images, labels = self.train
        counts = np.bincount(labels, minlength=self.classes)
        # 5000 / 100 must be 50, whatever the rounding of the power.
        profile = counts.min() * factor ** (-np.arange(self.classes) / (self.classes - 1))
        wanted = np.maximum(np.floor(profile + 1e-6), 1).astype(int)
        kept = np.zeros(len(labels), bool)
        for label, count in enumerate(wanted):
            kept[np.flatnonzero(labels == label)[:count]] = True
        return dataclasses.replace(self, train=(images[kept], labels[kept]))


class MissingDataset(UserError):
    """A data set is not on this machine. The message says how to get it."""


def load_images(name: str, data_dir: str, download: bool = False) -> Images:
    """A data set of images by its name.

    Errors: a `MissingDataset` that says how to get it; a `UserError` for a data set whose examples
    are not an image with a class, or whose images differ in size.
    """
    if name == "digits":
        return _digits()
    path = Path(data_dir).expanduser() / f"{name}.npz"
    if not path.exists():
        write_cache(path, _read_tensorflow_dataset(name, data_dir, download))
    return _with_input_statistics(name, read_cache(path))


def generated_images(name: str, examples: int) -> Images:
    """Noise in the shape of a data set that is not here: something to run on, nothing to learn."""
    recipe = RECIPES[name]
    random = np.random.default_rng(0)
    arrays = {"classes": recipe.classes, "source": f"generated noise, not {name}"}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = random.integers(0, 256, (examples, *recipe.shape), "uint8")
        arrays[f"{split}_labels"] = random.integers(0, recipe.classes, examples, "int32")
    return _with_input_statistics(name, arrays)


def load_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `[n, features]` and targets `[n]` of a regression problem by its name."""
    if name == "diabetes":
        from sklearn.datasets import load_diabetes

        inputs, targets = load_diabetes(return_X_y=True)
        return inputs.astype("float32"), targets.astype("float32")
    if name == "sum_of_sines":
        return sum_of_sines()
    if name == "signal":
        return signal()
    raise UserError(
        f'The data set must be "diabetes", "sum_of_sines" or "signal". Received: {name!r}'
    )


def sum_of_sines(points: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """`y = Σ_j B_j sin(A_j · x)` at uniformly random points x of [-1, 1]².

    The sum is the toy problem of DiTAC (Chelly, Finder, Ifergane, Freifeld, ECCV 2024); the
    points, their number and their seed are ours.
    """
    a = np.array([(9, -7), (-9, 11), (3, 13), (9, 9), (13, 5), (3, 19)], "float64")
    b = np.array([0.4, 0.1, 0.15, 0.15, 0.1, 0.1])
    x = np.random.default_rng(0).uniform(-1, 1, (points, 2))
    return x.astype("float32"), (np.sin(x @ a.T) @ b).astype("float32")


def signal(points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """A signal in one dimension, `y = sin 4πx + ½ sin(7πx + 1) + ¼ sin(13πx + 2)` on [-1, 1].

    DiTAC's paper also reconstructs a signal in one dimension. Which one is not known to us: this
    one, its points and their seed are ours.
    """
    x = np.random.default_rng(0).uniform(-1, 1, (points, 1))
    y = np.sin(4 * np.pi * x) + np.sin(7 * np.pi * x + 1) / 2 + np.sin(13 * np.pi * x + 2) / 4
    return x.astype("float32"), y[:, 0].astype("float32")


def write_cache(path: Path, arrays: dict) -> None:
    """Makes the folder, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        np.savez(file, **arrays)


def read_cache(path: Path) -> dict:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged: delete it, it is made anew. ({error})") from error


def _digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # 0 … 16 as pixels 0 … 255, like every other data set.
    pixels = np.round(digits.images * (255 / 16)).astype("uint8")[..., None]
    train, test, train_labels, test_labels = train_test_split(
        pixels,
        digits.target.astype("int32"),
        test_size=DIGITS_TEST_SHARE,
        random_state=DIGITS_SPLIT_SEED,
        stratify=digits.target,
    )
    arrays = {
        "train_images": train,
        "train_labels": train_labels,
        "test_images": test,
        "test_labels": test_labels,
        "classes": 10,
        "source": "scikit-learn digits",
    }
    return _with_input_statistics("digits", arrays)


def _with_input_statistics(name, arrays):
    train = arrays["train_images"]
    if name in RECIPES:
        _, _, mean, deviation, augmentation = RECIPES[name]
    else:
        mean = tuple((train.mean((0, 1, 2)) / 255).tolist())
        # A constant channel is left as it is instead of divided by zero.
        deviation = tuple(float(d) or 1.0 for d in train.std((0, 1, 2)) / 255)
        augmentation = "none"
    return Images(
        (train, arrays["train_labels"]),
        (arrays["test_images"], arrays["test_labels"]),
        int(arrays["classes"]),
        mean,
        deviation,
        augmentation,
        str(arrays["source"]),
    )


def prepared(name: str, data_dir: str, download: bool):
    """A builder of TensorFlow Datasets whose data set is there, and tensorflow_datasets itself.

    Errors: a `MissingDataset` that says how to get it; a `UserError` for an unknown name.
    """
    command = f"python -m training.datasets --dataset={name} --data_dir={data_dir} --download"
    try:
        import tensorflow  # noqa: F401 (TensorFlow Datasets reads its files with it)
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingDataset(
            f"{name} is not in {data_dir}, and getting it needs TensorFlow Datasets, which is not "
            f"installed here ({error}). Where it is (pip install tensorflow tensorflow-datasets "
            f"importlib_resources), run\n    {command}\n"
            f"and copy {name}.npz from its --data_dir to {data_dir} here."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=str(Path(data_dir).expanduser()), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            "The data set must be digits or one that TensorFlow Datasets has by that name, see "
            f"https://www.tensorflow.org/datasets/catalog. Received: {name!r}"
        ) from error
    if not builder.is_prepared():
        if not download:
            raise MissingDataset(f"{name} is not in {data_dir}. This gets it:\n    {command}")
        try:
            builder.download_and_prepare()
        except AssertionError as error:  # so it says which files the user must get, as of ImageNet
            raise MissingDataset(f"{name} is not in {data_dir}. {error}") from error
    return builder, tfds


def _read_tensorflow_dataset(name, data_dir, download):
    """The arrays of a data set of TensorFlow Datasets, by the names they have in the cache."""
    builder, tfds = prepared(name, data_dir, download)
    splits = builder.info.splits
    test = next((split for split in ("test", "validation") if split in splits), None)
    if builder.info.supervised_keys != ("image", "label") or "train" not in splits or not test:
        raise UserError(
            "An image classifier needs a data set of (image, label) with a split train and a split "
            f"test or validation. Received: {builder.info.full_name}, with "
            f"{builder.info.supervised_keys} and the splits {sorted(splits)}."
        )
    if None in builder.info.features["image"].shape:
        raise UserError(
            f"The images of {name} differ in size, so they do not make one array. "
            f"Received: shape {builder.info.features['image'].shape}."
        )
    logging.info("Turning %s into arrays, once.", builder.info.full_name)
    arrays = {
        "classes": builder.info.features["label"].num_classes,
        "source": builder.info.full_name,
    }
    for ours, theirs in (("train", "train"), ("test", test)):
        # The reading order of the files, the same in every run.
        images, labels = tfds.as_numpy(
            builder.as_dataset(theirs, batch_size=-1, as_supervised=True, shuffle_files=False)
        )
        arrays[f"{ours}_images"] = images
        arrays[f"{ours}_labels"] = labels.astype("int32")
    return arrays


def assert_there(names: list[str], data_dir: str, download: bool, noise: bool = False) -> None:
    """Gets data sets of images if it may; turns those into arrays that fit in memory.

    Errors: see `load_images`; with `noise` none for what `generated_images` can stand in for.
    """
    for name in names:
        try:
            get = prepared if name == "imagenet2012" else load_images
            get(name, data_dir, download)
        except MissingDataset:
            if not (noise and name in RECIPES):
                raise


def main(argv):
    values = flags.FLAGS
    if values.dataset == "imagenet2012":
        builder, _ = prepared(values.dataset, values.data_dir, values.download)
        print(f"{builder.info.full_name} is in {values.data_dir}.")
        return
    images = load_images(values.dataset, values.data_dir, values.download)
    print(
        f"{values.dataset}: {len(images.train[0])} training and {len(images.test[0])} test images "
        f"of shape {images.shape}, {images.classes} classes, from {images.source}."
    )


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "digits", "data set")
    flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "where data sets are kept")
    flags.DEFINE_bool("download", False, "get the data set if it is not in data_dir")
    app.run(main)
