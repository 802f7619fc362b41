"""The layer of Kolmogorov–Arnold transformers: a group rational, then a linear layer."""

import keras
import numpy as np

from keras_learnact import fitting
from keras_learnact.layers.base import (
    PACKAGE,
    deserialize,
    serialize,
    serialize_start,
    standardized,
)
from keras_learnact.layers.pau import PAU

NODES = 160  # of the quadrature; the moments of fitted kinks are right to 1e-4


@keras.saving.register_keras_serializable(PACKAGE)
class GroupKANDense(keras.layers.Layer):
    """Dense layer of learned functions of its inputs, one function for each group of channels.

    Formula:

        f_i = Σ_c W_ci F_g(x_c) + b_i,   F_g(x) = P(x) / Q_g(x)   with g the group of channel c

    The groups are neighbouring channels. P is one polynomial for all groups, Q_g one of each group,
    as in `PAU(sharing=groups, shared_numerator=True)`. With d inputs these are (d + 1) · units
    numbers of a dense layer, and m + 1 + n · groups of the group rational: 38 by default.

    The functions start as `initial`. The weights start with the variance gain / d, where

        gain = 1 / E[F(x)²],   x standard normal

    so that independent standard normal inputs give outputs of mean 0 and variance 1 over the draws
    of the weights: 1 for "identity", 2.811 for "swish", 2.352 for "gelu". E is computed by
    quadrature from the coefficients with which the functions do start.

    The transformer of the paper has two of these layers where others have two dense layers with a
    GELU in between: `GroupKANDense(4 * d, initial="identity")`, then `GroupKANDense(d)`.

    Args:
        units: how many outputs.
        groups: how many functions; a divisor of the number of input channels.
        initial, degrees, denominator: of the functions, see `PAU`.
        use_bias: whether there is a b.
        kernel_initializer: of the weights. None: the normal distribution with the variance above.
        bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint:
            of the `keras.layers.Dense` inside, whose weights are `linear.kernel` and `linear.bias`.
        rational: the layer of functions itself, in place of the one that the other arguments
            describe, `groups` too: say, a PAU with regularizers. A config has it, with its
            `trainable`. The gain is that of a PAU; of another layer, that of `initial`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Input shape: any, with a known number of channels, the last axis. Output shape: the same, but
    for `units` channels.

    Weights: `rational.numerator` [1, m + 1], `rational.denominator` [groups, n], and those of
    `linear`.

    Raises:
        ValueError: as `PAU` and `keras.layers.Dense` do, and for a start without a gain: the
            function that is 0 everywhere. When built: for a number of channels that is not a
            multiple of `groups`.

    Example:

    >>> mlp = [GroupKANDense(256, initial="identity"), GroupKANDense(64, initial="gelu")]

    Reference: Yang, Wang: Kolmogorov–Arnold Transformer, ICLR 2025.
    """

    def __init__(
        self,
        units,
        groups=8,
        initial="swish",
        degrees=(5, 4),
        denominator="A",
        use_bias=True,
        kernel_initializer=None,
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        rational=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (("units", units), ("groups", groups)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"GroupKANDense: `{name}` must be an integer >= 1. Received: {name}={value!r}"
                )
        self.units = units
        self.groups = groups
        self.initial = standardized(initial)
        self.degrees = standardized(degrees)
        self.denominator = denominator
        options = {
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        self.options = {name: standardized(value) for name, value in options.items()}
        if rational is None:
            rational = PAU(
                self.degrees,
                denominator,
                self.initial,
                groups,
                shared_numerator=True,
                name=f"{self.name}_rational",
                dtype=self.dtype_policy,
            )
        if not isinstance(rational, keras.layers.Layer):
            raise ValueError(
                "GroupKANDense: `rational` must be a layer, say a PAU, or None. "
                f"Received: rational={rational!r}"
            )
        self.rational = rational
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.VarianceScaling(
                self.gain(), "fan_in", "untruncated_normal"
            )
        self.linear = keras.layers.Dense(
            units,
            **{**self.options, "kernel_initializer": kernel_initializer},
            dtype=self.dtype_policy,
            name="linear",
        )
        self.supports_masking = True

    def gain(self):
        """1 / E[F(x)²] for standard normal x.

        F is the function with which `rational` starts; if that is no PAU, that of `initial`.
        """
        initial, degrees, version = self.initial, self.degrees, self.denominator
        if isinstance(self.rational, PAU):
            initial, degrees = self.rational.initial, self.rational.degrees
            version = self.rational.version
        start = fitting.start(initial, degrees, version)
        x, weights = np.polynomial.hermite_e.hermegauss(NODES)
        with np.errstate(all="ignore"):
            y = fitting.rational(x, *start, version)
            gain = np.sum(weights) / np.sum(weights * y**2)
        if not 0 < gain < float("inf"):
            raise ValueError(
                "GroupKANDense: the variance can be kept only by a function that is not 0 and has "
                f"no pole. Received: initial={initial!r}. Give a `kernel_initializer`."
            )
        return float(gain)

    def build(self, input_shape):
        self.rational.build(input_shape)
        self.linear.build(input_shape)

    def call(self, inputs):
        return self.linear(self.rational(inputs))

    def compute_output_shape(self, input_shape):
        return self.linear.compute_output_shape(input_shape)

    def _numbers(self):
        if isinstance(self.rational, PAU):
            return self.rational._start
        return fitting.start(self.initial, self.degrees, self.denominator)

    def get_config(self):
        rational = keras.saving.serialize_keras_object(self.rational)
        rational.pop("build_config", None)  # this layer builds it
        return {
            **super().get_config(),
            "units": self.units,
            "groups": self.groups,
            "initial": serialize_start(self.initial, self._numbers),
            "degrees": self.degrees,
            "denominator": self.denominator,
            **{name: serialize(value) for name, value in self.options.items()},
            "rational": rational,
        }

    @classmethod
    def from_config(cls, config):
        parts = {name: deserialize(config[name]) for name in ("initial", "rational")}
        return cls(**{**config, **parts})
