"""Augmentation inside the compiled step: layers that move pixels in training and rest otherwise.

Keras' own random layers cannot be compiled (`supports_jit = False`), and its `RandomCrop` moves a
whole batch alike. These here work on every backend, under XLA, image by image.
"""

import math

import keras
from keras import ops

from training.config import UserError


class _MovePixels(keras.layers.Layer):
    """In training pixel (i, j) of each image is taken from where `source` says; 0 from outside."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def source(self, rows, columns, count):
        """Integer tensors `[count, height, width]`: the row and column of each pixel's origin.

        Args:
            rows: int32 tensor `[1, height, 1]`, 0 … height - 1.
            columns: int32 tensor `[1, 1, width]`.
            count: how many images.
        """
        raise NotImplementedError

    def call(self, images, training=None):
        if not training:
            return images
        _, height, width, channels = images.shape
        rows = ops.reshape(ops.arange(height, dtype="int32"), (1, height, 1))
        columns = ops.reshape(ops.arange(width, dtype="int32"), (1, 1, width))
        row, column = self.source(rows, columns, ops.shape(images)[0])
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = ops.where(inside, row * width + column, 0)
        pixels = ops.reshape(images, (-1, height * width, channels))
        moved = ops.take_along_axis(pixels, ops.reshape(index, (-1, height * width, 1)), axis=1)
        moved = ops.reshape(moved, (-1, height, width, channels))
        return ops.where(inside[..., None], moved, ops.zeros_like(moved))

    def compute_output_shape(self, input_shape):
        return input_shape


class Rotation(_MovePixels):
    """Each image turned about its centre by an angle uniform in ± `degrees`, nearest pixel."""

    def __init__(self, degrees: float, **kwargs):
        super().__init__(**kwargs)
        self.degrees = degrees

    def source(self, rows, columns, count):
        limit = math.radians(self.degrees)
        angle = keras.random.uniform((count, 1, 1), -limit, limit, seed=self.seed_generator)
        middle_row, middle_column = (rows.shape[1] - 1) / 2, (columns.shape[2] - 1) / 2
        y = ops.cast(rows, "float32") - middle_row
        x = ops.cast(columns, "float32") - middle_column
        row = ops.cos(angle) * y - ops.sin(angle) * x + middle_row
        column = ops.sin(angle) * y + ops.cos(angle) * x + middle_column
        return ops.cast(ops.round(row), "int32"), ops.cast(ops.round(column), "int32")


class CropAndFlip(_MovePixels):
    """Each image padded with `padding` zeros, cropped to its size, and mirrored half the time."""

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def source(self, rows, columns, count):
        shift = keras.random.randint(
            (2, count, 1, 1), -self.padding, self.padding + 1, seed=self.seed_generator
        )
        mirrored = keras.random.uniform((count, 1, 1), seed=self.seed_generator) < 0.5
        columns = ops.where(mirrored, columns.shape[2] - 1 - columns, columns)
        # Both broadcast to [count, height, width] where they meet.
        return rows + shift[0], columns + shift[1]


def augmentation(name: str, seed: int) -> list[keras.layers.Layer]:
    """The layers of an augmentation by its name."""
    layers = {
        "none": [],
        "rotation": [Rotation(30, seed=seed)],
        "crop_and_flip": [CropAndFlip(4, seed=seed)],
    }
    if name not in layers:
        raise UserError(f"The augmentation must be one of {sorted(layers)}. Received: {name!r}")
    return layers[name]
