"""Meta-ACON-C: ACON-C whose switching factor depends on the sample."""

import keras
from keras import ops

from keras_learnact.layers.base import (
    PACKAGE,
    LayerWithPath,
    _initializer,
    serialize,
    standardized,
    start,
)
from keras_learnact.numerics import limits

# Of numbers beyond it sums and squares may overflow.
LARGE = 1e15


@keras.saving.register_keras_serializable(PACKAGE)
class MetaACONC(LayerWithPath):
    """Meta-ACON-C: `ACONC` with a β for each sample and channel, from the means of all channels.

    Formula, for a channel with p1 and p2:

        f(x) = (p1 − p2) x σ(β (p1 − p2) x) + p2 x,   σ(u) = 1 / (1 + e^(−u))
        β = σ(normalized(W2 normalized(W1 m + b1) + b2))

    with the mean m_c of each channel c of the sample. So β lies between 0, where the channel is
    linear, and 1. W1 has max(ratio, C // ratio) rows of C numbers for C channels, and the two
    normalizations are batch normalizations.

    With p1 = 1, p2 = 0, and the scale of the last normalization at 0, so that every β is 1/2, it
    starts as x σ(x / 2), `Swish` with β = 1/2; β itself begins to differ between samples as soon as
    that scale moves. The authors' program starts it at 1 and draws p1 and p2 from the normal
    distribution.

    It is no element-wise function: `range`, formulas and bounds are of `ACONC` only. A mask passes
    through, and what it hides does not count in the means.

    For p1 and p2 up to 10^15 the value is right for every finite x, to the rounding of the larger
    of p1 x and p2 x. In the means inputs beyond ±10^15 count as that, without a gradient.
    f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        ratio: of channels to hidden units of the network of β, an integer >= 1, and the fewest
            hidden units.
        initial: `(p1, p2)`, each a number or a Keras initializer.
        normalization: whether there are the two batch normalizations. Without them W2 starts at 0.
        axis: the channel axis: -1 is channels last, 1 is channels first.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Weights: `p1`, `p2`, each [channels]; those of the layers `squeeze`, `squeeze_normalization`,
        `excite` and `excite_normalization`.

    Input shape: any with a known number of channels. Output shape: the same.

    Output dtype: the layer's compute dtype. The arithmetic is done in float32 (in float64 under a
    float64 policy), whatever the compute dtype.

    Raises:
        ValueError: for ratio < 1, axis = 0, or an `initial` that is not two numbers or
            initializers; when built, for an input without this axis, or whose number of channels
            is unknown.

    Reference: Ma, Zhang, Liu, Sun: Activate or Not: Learning Customized Activation, CVPR 2021,
    section 3.4. The start of the last normalization is ours.
    """

    def __init__(self, ratio=16, initial=(1.0, 0.0), normalization=True, axis=-1, **kwargs):
        super().__init__(**kwargs)
        if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
            raise ValueError(
                f"MetaACONC: `ratio` must be an integer >= 1. Received: ratio={ratio!r}"
            )
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                "MetaACONC: `axis` must be an integer other than 0, which is the batch axis. "
                f"Received: axis={axis!r}"
            )
        if not isinstance(initial, (list, tuple)) or len(initial) != 2:
            raise ValueError(
                "MetaACONC: `initial` must be two numbers or initializers (p1, p2). "
                f"Received: initial={initial!r}"
            )
        self.ratio = ratio
        self.initial = standardized(initial)
        self.normalization = normalization
        self.axis = axis
        self.supports_masking = True
        self._start = [
            start("MetaACONC", f"initial[{i}]", value, 1) for i, value in enumerate(self.initial)
        ]

    def build(self, input_shape):
        _, channels = self._channels(input_shape)
        dtype = self._math_dtype
        self.p1, self.p2 = (
            self.add_weight(
                shape=(channels,), initializer=_initializer(value), autocast=False, name=name
            )
            for name, value in zip(("p1", "p2"), self._start, strict=True)
        )
        hidden = max(self.ratio, channels // self.ratio)
        # Of two starts at 0 neither would have a gradient.
        kernel = "glorot_uniform" if self.normalization else "zeros"
        self.squeeze = keras.layers.Dense(hidden, dtype=dtype, name="squeeze")
        self.excite = keras.layers.Dense(
            channels, kernel_initializer=kernel, dtype=dtype, name="excite"
        )
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))
        if self.normalization:
            common = {"momentum": 0.9, "epsilon": 1e-5, "dtype": dtype}  # the authors' framework's
            self.squeeze_normalization = keras.layers.BatchNormalization(
                name="squeeze_normalization", **common
            )
            self.excite_normalization = keras.layers.BatchNormalization(
                gamma_initializer="zeros", name="excite_normalization", **common
            )
            self.squeeze_normalization.build((None, hidden))
            self.excite_normalization.build((None, channels))

    def call(self, inputs, training=None, mask=None):
        axis, channels = self._channels(inputs.shape)
        rank = len(inputs.shape)
        x = ops.cast(inputs, self._math_dtype)
        beta = self.switching_factors(x, training, mask)
        spread = [1] * rank
        spread[axis] = channels
        p1, p2 = (ops.reshape(ops.cast(p, x.dtype), spread) for p in (self.p1, self.p2))
        beta = ops.reshape(beta, [-1, *spread[1:]])
        most = float(limits(x.dtype).max)
        x, difference = ops.clip(x, -most, most), p1 - p2
        share = ops.sigmoid(beta * (difference * ops.clip(x, -LARGE, LARGE)))
        share = ops.where(ops.abs(x) > LARGE, ops.stop_gradient(share), share)
        return ops.cast(x * (p2 + difference * share), self.compute_dtype)

    def switching_factors(self, x, training=None, mask=None):
        """β, `[batch, channels]`, of an input of the layer."""
        beta = self._means(ops.clip(x, -LARGE, LARGE), mask)
        for name in ("squeeze", "excite"):
            beta = getattr(self, name)(beta)
            if self.normalization:
                beta = getattr(self, f"{name}_normalization")(beta, training=training)
        return ops.sigmoid(beta)

    def _means(self, x, mask):
        axis, _ = self._channels(x.shape)
        others = [i for i in range(1, len(x.shape)) if i != axis]
        if mask is None:
            return ops.mean(x, others) if others else x
        seen = ops.cast(mask, x.dtype)
        seen = ops.reshape(seen, [*ops.shape(seen), *[1] * (len(x.shape) - len(seen.shape))])
        seen = seen * ops.ones_like(x)
        x = ops.where(seen > 0, x, 0.0)  # a product with nan would be nan
        return ops.sum(x, others) / ops.maximum(ops.sum(seen, others), 1.0)

    def why_no_kernel(self):
        return "MetaACONC has no compiled kernel: its β differs between samples"

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs, training=None, mask=None):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "ratio": self.ratio,
            "initial": serialize(self.initial),
            "normalization": self.normalization,
            "axis": self.axis,
        }

    def _channels(self, input_shape):
        """The channel axis, counted from the left, and the number of channels."""
        shape = tuple(input_shape)
        rank = len(shape)
        if not -rank < self.axis < rank:
            raise ValueError(
                f"MetaACONC(axis={self.axis}) needs an input that has this axis beside the batch "
                f"axis. Received: input_shape={shape}"
            )
        axis = self.axis % rank
        if shape[axis] is None:
            raise ValueError(
                f"MetaACONC(axis={self.axis}) needs a known number of channels. "
                f"Received: input_shape={shape}"
            )
        return axis, shape[axis]
