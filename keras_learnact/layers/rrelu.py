"""RReLU: leaky ReLU whose slope is random during training. Nothing is learned."""

import keras
from keras import ops

from keras_learnact.layers.base import PACKAGE
from keras_learnact.numerics import finite


@keras.saving.register_keras_serializable(PACKAGE)
class RReLU(keras.layers.Layer):
    """Randomized leaky rectified linear unit.

    Formula:

        f(x) = x     for x >= 0
               a x   for x < 0

    In training a is drawn anew for every element, uniformly from [lower, upper); at inference it
    is (lower + upper) / 2. (The paper writes x / a with a from (3, 8) and 5.5 at inference: the
    same range of slopes, but not the same distribution in it, and 0.18 instead of 0.23.)

    f(nan) is nan. The arithmetic is done in float32 (in float64 under a float64 policy), whatever
    the compute dtype.

    Args:
        lower, upper: finite numbers, lower <= upper.
        seed: optional integer; the same seed gives the same slopes, call by call.

    Input shape: any. Output shape: the same.

    Raises:
        ValueError: for lower > upper or numbers that are not finite.

    Reference: Xu, Wang, Chen, Li: Empirical Evaluation of Rectified Activations in Convolutional
    Network, 2015, Eq. 4.
    """

    def __init__(self, lower=1 / 8, upper=1 / 3, seed=None, **kwargs):
        super().__init__(**kwargs)
        numbers = isinstance(lower, (int, float)) and isinstance(upper, (int, float))
        if not numbers or not float("-inf") < lower <= upper < float("inf"):  # also false for nan
            raise ValueError(
                "RReLU: `lower` and `upper` must be finite numbers, and lower <= upper. "
                f"Received: lower={lower!r}, upper={upper!r}"
            )
        self.lower = lower
        self.upper = upper
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=False):
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        x = ops.cast(inputs, dtype)
        if training:
            a = keras.random.uniform(
                ops.shape(x), self.lower, self.upper, dtype=dtype, seed=self.seed_generator
            )
        else:
            a = (self.lower + self.upper) / 2
        # finite: a slope of 0 gives 0 at −∞.
        return ops.cast(ops.where(x < 0, a * finite(x), x), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, training=False):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "lower": self.lower,
            "upper": self.upper,
            "seed": self.seed,
        }
