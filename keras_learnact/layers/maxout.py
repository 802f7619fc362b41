"""Maxout: the largest of several linear functions of the input."""

import keras
from keras import ops

from keras_learnact import kernels
from keras_learnact.layers.base import PACKAGE, LayerWithPath, serialize, standardized


@keras.saving.register_keras_serializable(PACKAGE)
class Maxout(LayerWithPath):
    """Maximum over groups of channels. It has no weights; those of the layer before are learned.

    Formula, with k = pieces:

        f_i = max_{j=0..k−1} x_{k i + j}

    A group is k neighbouring channels: channels 0 … k − 1 give output 0, the next k give output 1.
    So there are k times fewer channels after the layer than before.

    A nan in a group gives nan. Where several pieces are the largest, each of them gets an equal
    share of the gradient.

    Args:
        pieces: k >= 1, a divisor of the number of channels.
        axis: the channel axis: -1 is channels last, 1 is channels first.

    Input shape: any, with a known number of channels. Output shape: the same, but for
    channels / pieces on `axis`.

    Raises:
        ValueError: for pieces < 1 or axis = 0; on a call, for an input without this axis, or a
            number of channels that is unknown or not a multiple of `pieces`.

    Example:

    >>> Maxout(pieces=2)(np.array([[1.0, 5.0, -2.0, -3.0]]))
    [[5.0, -2.0]]

    Reference: Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013.
    """

    def __init__(self, pieces=2, axis=-1, **kwargs):
        super().__init__(**kwargs)
        if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 1:
            raise ValueError(
                f"Maxout: `pieces` must be an integer >= 1. Received: pieces={pieces!r}"
            )
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                "Maxout: `axis` must be an integer other than 0, which is the batch axis. "
                f"Received: axis={axis!r}"
            )
        self.pieces = pieces
        self.axis = axis
        self.supports_masking = True
        self.built = True

    def call(self, inputs):
        axis, channels = self._channels(inputs.shape)
        if not self._why_not(keras.backend.standardize_dtype(inputs.dtype)):
            return kernels.run(self.kernel(), inputs, None, axis)
        if 0 in inputs.shape:
            # `ops.max` refuses an empty input in TensorFlow's eager mode, although its axis is not.
            return ops.split(inputs, self.pieces, axis=axis)[0]
        shape = ops.shape(inputs)
        split = (*shape[:axis], channels // self.pieces, self.pieces, *shape[axis + 1 :])
        return maximum(ops.reshape(inputs, split), axis + 1)

    def kernel(self):
        """How the compiled kernel is called: a `kernels.Call`."""
        return kernels.Call(KERNEL, (self.pieces,))

    def why_no_kernel(self):
        return self._why_not(self.compute_dtype)

    def _why_not(self, dtype):
        return kernels.why_not(self.kernel(), dtype, 0)

    def compute_output_shape(self, input_shape):
        axis, channels = self._channels(input_shape)
        shape = tuple(input_shape)
        return (*shape[:axis], channels // self.pieces, *shape[axis + 1 :])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "pieces": self.pieces, "axis": self.axis}

    def _channels(self, input_shape):
        """The channel axis, counted from the left, and the number of channels."""
        shape = tuple(input_shape)
        rank = len(shape)
        if not -rank < self.axis < rank:
            raise ValueError(
                f"Maxout(axis={self.axis}) needs an input that has this axis beside the batch "
                f"axis. Received: input_shape={shape}"
            )
        axis = self.axis % rank
        if shape[axis] is None or shape[axis] % self.pieces:
            raise ValueError(
                f"Maxout(pieces={self.pieces}, axis={self.axis}) needs a number of channels that "
                f"is known and a multiple of {self.pieces}. Received: input_shape={shape}. Give "
                f"the layer before {self.pieces} times as many units as you want after this one."
            )
        return axis, shape[axis]


def maximum(x, axis):
    """The largest along an axis of x; nan if one of them is nan."""
    # The maximum over an axis, compiled by TensorFlow's XLA for CPUs, passes nan over.
    has_nan = ops.any(ops.isnan(x), axis=axis)
    return ops.where(has_nan, float("nan"), ops.max(x, axis=axis))


def _formula(x, p, settings, key):
    return maximum(x, 2)


KERNEL = kernels.kernel("Maxout", _formula)


class LinearMaxout(LayerWithPath):
    """A linear layer with `pieces` times the units, and the maximum over each unit's pieces.

    Args:
        linear: function that makes the linear layer, from its number of units and `options`.
        units: how many units remain after the maximum.
        pieces: see `Maxout`.
        axis: see `Maxout`.
        options: further constructor arguments of the linear layer.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.
    """

    def __init__(self, linear, units, pieces, axis, options, **kwargs):
        super().__init__(**kwargs)
        name = type(self).__name__
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(
                f"{name}: the number of units or filters must be an integer >= 1. "
                f"Received: {units!r}"
            )
        self.maxout = Maxout(pieces, axis, dtype=self.dtype_policy)
        self.pieces = pieces
        self.options = {name: standardized(value) for name, value in options.items()}
        self.linear = linear(units * pieces, **self.options, dtype=self.dtype_policy, name="linear")
        self.supports_masking = self.linear.supports_masking

    def build(self, input_shape):
        self.linear.build(input_shape)

    def call(self, inputs):
        return self.maxout(self.linear(inputs))

    def why_no_kernel(self):
        return self.maxout.why_no_kernel()

    def compute_output_shape(self, input_shape):
        return self.maxout.compute_output_shape(self.linear.compute_output_shape(input_shape))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_config(self):
        options = {name: serialize(value) for name, value in self.options.items()}
        return {**super().get_config(), "pieces": self.pieces, **options}


@keras.saving.register_keras_serializable(PACKAGE)
class MaxoutDense(LinearMaxout):
    """Dense layer of maxout units: each unit is the largest of `pieces` linear functions.

    Formula:

        f_i = max_{j=1..k} z_ij,   z = x W + b   with k = pieces and k · units columns in W

    The columns of one unit are neighbours, as in `Maxout`.

    Args:
        units: how many outputs.
        pieces: k >= 1.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: of the `keras.layers.Dense` inside, which has
            k · units units; its weights are `linear.kernel` and `linear.bias`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Raises:
        ValueError: for units < 1 or pieces < 1.

    Reference: Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013.
    """

    def __init__(
        self,
        units,
        pieces=2,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        options = {
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        super().__init__(keras.layers.Dense, units, pieces, -1, options, **kwargs)
        self.units = units

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(PACKAGE)
class MaxoutConv2D(LinearMaxout):
    """2-D convolution of maxout units: each filter is the largest of `pieces` convolutions.

    Formula:

        f_i = max_{j=1..k} z_ij,   z = x ∗ W + b   with k = pieces and k · filters filters in W

    The filters of one unit are neighbours, as in `Maxout`.

    Args:
        filters: how many output channels.
        kernel_size: of the convolution.
        pieces: k >= 1.
        strides, padding, data_format, dilation_rate, groups, use_bias, kernel_initializer,
            bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint,
            bias_constraint: of the `keras.layers.Conv2D` inside, which has k · filters filters; its
            weights are `linear.kernel` and `linear.bias`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Raises:
        ValueError: for filters < 1 or pieces < 1, and as `keras.layers.Conv2D` does.

    Reference: Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        pieces=2,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        options = {
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": padding,
            # What the global setting says now, so that a saved model does not depend on it.
            "data_format": data_format or keras.config.image_data_format(),
            "dilation_rate": dilation_rate,
            "groups": groups,
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        axis = 1 if options["data_format"] == "channels_first" else -1
        super().__init__(keras.layers.Conv2D, filters, pieces, axis, options, **kwargs)
        self.filters = filters

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}
