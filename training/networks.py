"""The papers' networks by name, for any activation.

Their numbers of parameters are asserted in tests/training/networks_test.py.
"""

import math
from typing import NamedTuple

import keras

from training import activations
from training.config import UserError

layers = keras.layers


class Unit:
    """What comes again and again in a network: an activation, alone or after a weight layer.

    Maxout takes the largest of k features, so the weight layer before it makes k times as many.
    That is the only activation that changes what comes before it, and this is the only place
    that knows.

    Args:
        name: name of the activation, see `training.activations`.
        arguments: of its constructor.
    """

    def __init__(self, name: str, **arguments):
        self.name = name
        self.arguments = arguments
        self.pieces = getattr(self._new(), "pieces", 1)

    def _new(self):
        return activations.create(self.name, **self.arguments)

    def alone(self):
        """A new layer for where no weight layer of its own comes before the activation."""
        if self.pieces > 1:
            raise UserError(
                f"{self.name} needs a dense or convolution layer right before it, and this network "
                "has an activation without one. Use another network, say vgg8 or mobilenet_v2."
            )
        return self._new()

    def dense(self, x, units):
        x = layers.Dense(units * self.pieces)(x)
        return self._new()(x)

    def convolution(self, x, filters, size, normalized=False, **options):
        """Convolution, batch normalisation if wanted, activation."""
        x = layers.Conv2D(filters * self.pieces, size, **options)(x)
        return self._normalize_and_activate(x, normalized)

    def depthwise(self, x, size, **options):
        """Depthwise convolution, batch normalisation, activation."""
        # The k features that Maxout compares are neighbours, and so are those that a depth
        # multiplier makes of one channel.
        x = layers.DepthwiseConv2D(size, depth_multiplier=self.pieces, **options)(x)
        return self._normalize_and_activate(x, True)

    def after_sum(self, x):
        """The activation after a residual sum. Maxout is in the branches, so the sum has none."""
        return x if self.pieces > 1 else self._new()(x)

    def _normalize_and_activate(self, x, normalized):
        if not normalized:
            return self._new()(x)
        # The counts of parameters show that the paper did not double batch normalisation.
        return normalize(self._new()(x)) if self.pieces > 1 else self._new()(normalize(x))


def normalize(x):
    """Batch normalisation with the constants of the papers' programs."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def build(name: str, images, unit: Unit, width: float = 1.0) -> keras.Model:
    """A classifier that takes raw pixels, 0 … 255, and returns logits.

    Args:
        name: a name of `NETWORKS`.
        images: `training.datasets.Images`, or anything with its `shape`, `classes`, `mean` and
            `deviation`.
        unit: the activation.
        width: factor of the hidden sizes, for a network that is `scalable`.

    Errors: a `UserError` for an unknown name, or a width that the network does not take.
    """
    if name not in NETWORKS:
        raise UserError(f"The network must be one of {sorted(NETWORKS)}. Received: {name!r}")
    network = NETWORKS[name]
    scalable = sorted(other for other in NETWORKS if NETWORKS[other].scalable)
    if width != 1 and name not in scalable:
        raise UserError(
            f"Only {' and '.join(scalable)} take a width. Received: width={width} for {name}. "
            "Use width=1."
        )
    sizes = {"width": width} if network.scalable else {}
    inputs = keras.Input(images.shape)
    scale = tuple(1 / (255 * deviation) for deviation in images.deviation)
    offset = tuple(-m / d for m, d in zip(images.mean, images.deviation, strict=True))
    x = layers.Rescaling(scale, offset)(inputs)
    if tuple(images.shape[:2]) != (network.size, network.size):
        x = layers.Resizing(network.size, network.size)(x)
    return keras.Model(inputs, network.function(x, images.classes, unit, **sizes), name=name)


def regression(inputs: int, hidden: tuple[int, ...], unit: Unit) -> keras.Model:
    """A multi-layer perceptron with one output."""
    x = start = keras.Input((inputs,))
    for units in hidden:
        x = unit.dense(x, units)
    return keras.Model(start, layers.Dense(1)(x), name="mlp")


def parameter_count(model: keras.Model) -> int:
    """How many numbers are trained: the papers count these."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def lenet(x, classes, unit):
    """LeNet-5 with 120 features before the dense layers (LeCun et al., 1998; PAU paper)."""
    x = layers.MaxPooling2D()(unit.convolution(x, 6, 5))
    x = layers.MaxPooling2D()(unit.convolution(x, 16, 5))
    x = layers.Flatten()(unit.convolution(x, 120, 5))
    return layers.Dense(classes)(unit.dense(x, 84))


def vgg8(x, classes, unit):
    """VGG-8 of the PAU paper: one form for grey images (MNIST), one for colours (CIFAR-10)."""
    if x.shape[-1] == 1:
        for filters, convolutions in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
            for _ in range(convolutions - 1):
                x = layers.Conv2D(filters, 3, padding="same")(x)
            x = layers.MaxPooling2D()(unit.convolution(x, filters, 3, padding="same"))
    else:
        for filters in (64, 128, 256, 512, 512):
            x = unit.convolution(x, filters, 3, normalized=True, padding="same")
            x = layers.MaxPooling2D()(x)
    return layers.Dense(classes)(layers.Flatten()(x))


def mlp(x, classes, unit, width=1.0):
    """Multi-layer perceptron of the DEU paper: 1024 and 512 hidden units."""
    x = unit.dense(layers.Flatten()(x), _scaled(1024, width))
    return layers.Dense(classes)(unit.dense(x, _scaled(512, width)))


def cnn(x, classes, unit, width=1.0):
    """Small network of the DEU paper: convolutions of 32 and 16 filters (their 3×3 is ours)."""
    x = unit.convolution(x, _scaled(32, width), 3, padding="same")
    x = unit.convolution(x, _scaled(16, width), 3, padding="same")
    return layers.Dense(classes)(layers.Flatten()(layers.AveragePooling2D(2)(x)))


def _scaled(size, width):
    if not 0.5 < size * width < math.inf:
        raise UserError(
            f"The width must leave at least 1 of a layer's {size}. Received: width={width}"
        )
    return round(size * width)


def resnet18(x, classes, unit):
    """ResNet-18 (He et al., 2016) in the common CIFAR form: 3×3 stem, no pooling after it."""
    return _resnet(x, classes, unit, _basic_block, (2, 2, 2, 2))


def resnet32(x, classes, unit):
    """ResNet-32 of He et al., 2016, for CIFAR: three stages of five blocks of 16 to 64 filters."""
    x = unit.convolution(x, 16, 3, **_residual(unit))
    for filters in (16, 32, 64):
        for _ in range(5):
            strides = 1 if x.shape[-1] == filters else 2
            y = unit.convolution(x, filters, 3, strides=strides, **_residual(unit))
            y = normalize(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
            if strides == 2:  # every second pixel, and zeros for the channels that are new
                new = (filters - x.shape[-1]) // 2
                x = layers.MaxPooling2D(1, strides)(x)
                x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new, new)))
            x = unit.after_sum(y + x)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def resnet101(x, classes, unit):
    """ResNet-101 (He et al., 2016) in the common CIFAR form: 3×3 stem, no pooling after it."""
    return _resnet(x, classes, unit, _bottleneck, (3, 4, 23, 3))


def _resnet(x, classes, unit, block, blocks):
    x = unit.convolution(x, 64, 3, **_residual(unit))
    for stage, count in enumerate(blocks):
        for i in range(count):
            x = block(x, 64 * 2**stage, 2 if stage and not i else 1, unit)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def _basic_block(x, filters, strides, unit):
    y = unit.convolution(x, filters, 3, strides=strides, **_residual(unit))
    y = normalize(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
    return unit.after_sum(y + _shortcut(x, filters, strides, unit))


def _bottleneck(x, filters, strides, unit):
    y = unit.convolution(x, filters, 1, **_residual(unit))
    y = unit.convolution(y, filters, 3, strides=strides, **_residual(unit))
    y = normalize(layers.Conv2D(4 * filters, 1, use_bias=False)(y))
    return unit.after_sum(y + _shortcut(x, 4 * filters, strides, unit))


def _shortcut(x, filters, strides, unit):
    if strides == 1 and x.shape[-1] == filters:
        return x
    if unit.pieces > 1:
        return unit.convolution(x, filters, 1, strides=strides, **_residual(unit))
    return normalize(layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x))


def _residual(unit):
    """How a residual network convolves.

    ○ reconstruction: with Maxout the paper's count of 75,454,090 parameters comes out if the
    convolutions of Maxout have biases and the projections of the shortcuts are Maxout, too.
    """
    return {"normalized": True, "padding": "same", "use_bias": unit.pieces > 1}


def mobilenet_v2(x, classes, unit):
    """MobileNetV2 (Sandler et al., 2018) in the common CIFAR form.

    Stride 1 in the stem and the first stages, and a projection wherever a block of stride 1
    changes the number of channels.
    """
    plain = {"normalized": True, "use_bias": False}
    x = unit.convolution(x, 32, 3, padding="same", **plain)
    for expansion, filters, count, first_strides in (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(count):
            strides = 1 if i else first_strides
            y = unit.convolution(x, expansion * x.shape[-1], 1, **plain)
            y = unit.depthwise(y, 3, strides=strides, padding="same", use_bias=False)
            y = normalize(layers.Conv2D(filters, 1, use_bias=False)(y))
            if strides == 1 and x.shape[-1] != filters:
                x = normalize(layers.Conv2D(filters, 1, use_bias=False)(x))
            x = y + x if strides == 1 else y
    x = unit.convolution(x, 1280, 1, **plain)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def densenet121(x, classes, unit, growth=32):
    """DenseNet-121 (Huang et al., 2017) in the common CIFAR form: 3×3 stem, growth 32."""

    def convolution(x, filters, size):
        x = unit.alone()(normalize(x))
        return layers.Conv2D(filters, size, padding="same", use_bias=False)(x)

    x = layers.Conv2D(2 * growth, 3, padding="same", use_bias=False)(x)
    for stage, count in enumerate((6, 12, 24, 16)):
        if stage:
            x = convolution(x, math.floor(x.shape[-1] * 0.5), 1)
            x = layers.AveragePooling2D(2)(x)
        for _ in range(count):
            y = convolution(convolution(x, 4 * growth, 1), growth, 3)
            x = layers.Concatenate()([y, x])
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(unit.alone()(normalize(x))))


def mobilenet_v2_imagenet(x, classes, unit):
    """MobileNetV2 of `keras.applications` (224×224) with its activations replaced."""
    network = keras.applications.MobileNetV2(
        input_shape=x.shape[1:], weights=None, classes=classes, classifier_activation=None
    )

    def replace(layer):
        if isinstance(layer, layers.ReLU):
            return unit.alone()
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=replace)(x)


class Network(NamedTuple):
    function: object  # (normalised images, classes, unit) -> logits
    size: int  # height and width of the images that it takes
    scalable: bool = False  # whether the function also takes `width`, a factor of its hidden sizes


NETWORKS = {
    "lenet": Network(lenet, 32),
    "vgg8": Network(vgg8, 32),
    "mlp": Network(mlp, 28, scalable=True),
    "cnn": Network(cnn, 28, scalable=True),
    "resnet18": Network(resnet18, 32),
    "resnet32": Network(resnet32, 32),
    "resnet101": Network(resnet101, 32),
    "mobilenet_v2": Network(mobilenet_v2, 32),
    "densenet121": Network(densenet121, 32),
    "mobilenet_v2_imagenet": Network(mobilenet_v2_imagenet, 224),
}
