"""ImageNet: the one data set that does not fit in memory, streamed through `tf.data`.

Its images differ in size, so they are cropped, resized and mirrored while they are read (He et
al., 2016; the augmentation of the framework's example that the PAU paper names). The order of the
images and every crop depend on the seed, the epoch and the position, and on nothing else.
"""

import itertools

import numpy as np

from training import datasets
from training.config import ImageConfig

NAME = "imagenet2012"
SIZE = 224
RESIZED = 256  # the shorter side of a test image, before the middle is cut out
SHUFFLED = 10_000  # images, as JPEG some 110 KB each


class Stream:
    """Feeds Keras' `fit` from `tf.data`; also the facts that `training.networks.build` asks for.

    Args:
        read: `read(split, seed)` gives a `tf.data.Dataset` of (JPEG string, label), for
            "train" in an order of files that depends on the seed (None: any fixed order).
        counts: the number of examples of "train" and "validation".
        config: the run.
        source: what result.json says of the data.
    """

    def __init__(self, read, counts: dict[str, int], config: ImageConfig, source: str):
        recipe = datasets.RECIPES[NAME]
        self.shape, self.classes = recipe.shape, recipe.classes
        self.mean, self.deviation = recipe.mean, recipe.deviation
        self.augmentation = recipe.augmentation
        self.source = source
        self._read = read
        self._counts = counts
        self._config = config

    @property
    def steps_per_epoch(self) -> int:
        return -(-self._examples("train") // self._config.batch_size)

    def arguments(self, first_epoch: int) -> dict:
        """What Keras' `fit` is to be given when it starts at this epoch."""
        epochs = [self._epoch(e) for e in range(first_epoch, self._config.epochs)]
        joined = None
        for epoch in epochs:
            joined = epoch if joined is None else joined.concatenate(epoch)
        return {
            "x": joined,
            "shuffle": False,  # it is shuffled already
            "steps_per_epoch": self.steps_per_epoch,
            "validation_data": self._test(),
            "callbacks": [],
        }

    def some_inputs(self, count: int) -> np.ndarray:
        """The first test images, as the network gets them."""
        images = self._test().unbatch().take(count).as_numpy_iterator()
        return np.stack([image for image, _ in itertools.islice(images, count)])

    def _examples(self, split):
        wanted = self._config.examples
        return min(self._counts[split], wanted) if wanted else self._counts[split]

    def _epoch(self, epoch):
        import tensorflow as tf

        seed = int(np.random.SeedSequence((self._config.seed, epoch)).generate_state(1)[0] // 2)
        examples = self._read("train", seed).take(self._examples("train"))
        examples = examples.shuffle(SHUFFLED, seed=seed)
        numbered = tf.data.Dataset.zip((tf.data.Dataset.counter(), examples))
        return self._batched(
            numbered.map(
                lambda i, example: (random_crop(example[0], (seed, i)), example[1]),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        )

    def _test(self):
        import tensorflow as tf

        examples = self._read("validation", None).take(self._examples("validation"))
        return self._batched(
            examples.map(lambda jpeg, label: (middle(jpeg), label), tf.data.AUTOTUNE)
        )

    def _batched(self, examples):
        import tensorflow as tf

        return examples.batch(self._config.batch_size).prefetch(tf.data.AUTOTUNE)


def load(config: ImageConfig) -> tuple[Stream, Stream]:
    """ImageNet from TensorFlow Datasets: the facts and the feed are one object."""
    builder, tfds = datasets.prepared(NAME, config.data_dir, config.download)
    decoders = {"image": tfds.decode.SkipDecoding()}  # only the part that is cropped is decoded

    def read(split, seed):
        options = tfds.ReadConfig(shuffle_seed=seed)
        return builder.as_dataset(
            split,
            shuffle_files=seed is not None,
            decoders=decoders,
            read_config=options,
            as_supervised=True,
        )

    counts = {split: builder.info.splits[split].num_examples for split in ("train", "validation")}
    stream = Stream(read, counts, config, builder.info.full_name)
    return stream, stream


def random_crop(jpeg, seed):
    """A random part of the image (8 % to all of its area), resized, mirrored half the time."""
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(jpeg)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed=seed,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    return tf.image.stateless_random_flip_left_right(_resized(image, (SIZE, SIZE)), seed)


def middle(jpeg):
    """The middle of the image, resized so that its shorter side has 256 pixels."""
    import tensorflow as tf

    image = tf.image.decode_jpeg(jpeg, channels=3)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    scale = RESIZED / tf.cast(tf.minimum(height, width), "float32")
    size = tf.cast(tf.round(tf.cast(tf.stack([height, width]), "float32") * scale), "int32")
    return tf.image.resize_with_crop_or_pad(_resized(image, size), SIZE, SIZE)


def _resized(image, size):
    import tensorflow as tf

    return tf.cast(tf.round(tf.image.resize(image, size)), "uint8")
