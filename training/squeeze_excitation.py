"""Channel attention: squeeze-and-excitation blocks, with any activation as gate."""

import keras

layers = keras.layers


@keras.saving.register_keras_serializable("training")
class SEBlock(layers.Layer):
    """Squeeze and excitation: every channel times a gate that sees the means of all channels.

    Formula, with m the means of x over its places:

        y = x · activation(W₂ relu(W₁ m + b₁) + b₂)

    Args:
        activation: the gate, the paper's "sigmoid" or any other, say `keras_learnact.APA()`.
        ratio: how many times fewer numbers than channels the hidden layer has, an integer >= 1.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape: [batch, height, width, channels]. Output shape: the same.

    Raises:
        ValueError: for a ratio < 1; when built, for an unknown number of channels.

    Reference: Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018, Eq. 2 to 4. The gate of
    Alexandridis, Deng, Nguyen, Luo: Adaptive Parametric Activation, ECCV 2024, whose blocks have no
    biases, and around an APA a normalization of m and dropout before the gate.
    """

    def __init__(self, activation="sigmoid", ratio=16, **kwargs):
        super().__init__(**kwargs)
        if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
            raise ValueError(f"SEBlock: `ratio` must be an integer >= 1. Received: ratio={ratio!r}")
        self.activation = keras.activations.get(activation)
        self.ratio = ratio

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "SEBlock needs an input with a known number of channels, its last axis. "
                f"Received: input_shape={input_shape}"
            )
        self.squeeze = layers.GlobalAveragePooling2D(keepdims=True, dtype=self.dtype_policy)
        hidden = max(channels // self.ratio, 1)
        self.reduce = layers.Dense(hidden, "relu", name="reduce", dtype=self.dtype_policy)
        self.excite = layers.Dense(
            channels, self.activation, name="excite", dtype=self.dtype_policy
        )
        self.reduce.build((*input_shape[:-3], 1, 1, channels))
        self.excite.build((*input_shape[:-3], 1, 1, hidden))

    def call(self, inputs):
        return inputs * self.excite(self.reduce(self.squeeze(inputs)))

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation, "ratio": self.ratio}
