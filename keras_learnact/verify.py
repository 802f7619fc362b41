"""What a network can answer when its input is perturbed, proven.

`bounds(model, x, eps)` encloses every output that the float32 model can give for any input within
`eps` of `x`; `certified_accuracy` counts the samples whose class no such perturbation changes.

Three methods, all sound:

- `"ibp"`: interval bound propagation (Gowal et al. 2018). Every element of every layer has an
  interval. An affine layer y = T x + b maps centre and radius: T c + b, |T| r.
- `"crown-ibp"`: the outputs as linear functions of the input (Zhang et al. 2020). An activation
  on [l, u] lies between two lines; these are put into one another from the output back to the
  input. The intervals [l, u] come from `"ibp"`. Never looser than `"ibp"`.
- `"crown"`: the intervals [l, u] before every activation come from such lines too (Zhang et al.
  2018): by far the tightest. The cost grows with the number of units before activations, so it is
  for small networks.

Why floating point does not break the proof. Write u = 2^-24, the unit of float32, v = 2^-53, and
γ_n = n u / (1 − n u).

1. The framework's y for y_i = Σ_j T_ij x_j + b_i, a sum of n terms in any order, with or without
   fused multiply-add, is within γ_(n+2) M_i of the exact value, where M = |T| |x| + |b| (Higham
   2002, section 3.1). Products and sums below the normal numbers, which the framework may flush
   to 0, add at most (n + 2) 2^-126 (1 + max |x| + max |T|). M is bounded with the largest |x| of
   the interval. M below float32's largest number also proves that no partial sum overflows.
2. We compute in float64. Our own sums are within γ_(n+2) M too, with v for u: less than one more
   float32 unit u M. So every affine layer is taken as T x + b ± e, e = γ_(n+4) M + flushed.
   Backward, a row a T computed in float64 is wrong by at most v (n + 2) |a| |T|, and this times
   |x| is below |a| u M: the same e covers it.
3. Activations are enclosed with the rounding of their float32 evaluation, as
   `keras_learnact.bounds` models it (those of Keras as formulas whose steps may overflow); the
   ReLU family, here, rounds one product.
4. Padding, reshaping and concatenation do not round. A maximum and the ReLU's comparison do not
   either, but they may take numbers below the normal ones for 0: return 0 for -1e-40, or -1e-40
   as the maximum of it and 0.
5. Sums over a backward row are lowered by (n + 8) 2^-52 times the sum of absolute values.

So a bound holds for every way to sum in full float32, but not for TF32 or bfloat16 products on
GPUs and TPUs, nor for Winograd and FFT convolutions: switch them off where the proof is to hold
(`tf.config.experimental.enable_tensor_float_32_execution(False)`,
`jax.config.update("jax_default_matmul_precision", "highest")`). In graphs, as `predict` runs them,
TensorFlow leaves Keras' mish and silu to oneDNN, where mish is wrong by up to 1e-6, and silu is 0
from -3e-36 on: the environment variable `TF_ENABLE_ONEDNN_OPTS=0` switches that off. A sample for
which an overflow of float32 cannot be excluded has the bounds −∞ and ∞, and its output may be nan.

A network that was trained without thought of its bounds has loose ones: `"ibp"` proves nothing
beyond tiny `eps`. Few layers, small weights (weight decay, L1), activations with small slopes, and
average rather than maximum pooling help, adversarial training more.

References:
    Gowal et al.: On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
    Models, 2018.
    Zhang, Weng, Chen, Hsieh, Daniel: Efficient Neural Network Robustness Certification with General
    Activation Functions, NeurIPS 2018.
    Zhang, Chen, Xiao, Gowal, Stanforth, Li, Boning, Hsieh: Towards Stable and Efficient Training of
    Verifiably Robust Neural Networks, ICLR 2020.
    Higham: Accuracy and Stability of Numerical Algorithms, 2nd edition, 2002.
"""

import functools
import inspect
import itertools
import math
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from keras.src.models.functional import Functional
from keras.src.ops import nn, numpy

from keras_learnact import bounds as activation_bounds
from keras_learnact import expressions, intervals
from keras_learnact.layers import (
    GroupKANDense,
    LearnableActivation,
    Maxout,
    MaxoutConv2D,
    MaxoutDense,
    RReLU,
)

METHODS = ("ibp", "crown-ibp", "crown")  # from the cheapest to the tightest

FLOAT32 = np.finfo("float32")
UNIT = 2.0**-24  # half a unit in the last place of 1 in float32
TINY = 2.0**-126  # the smallest normal float32
PIECES = 12  # an activation's interval is cut into so many, to find lines around it
NUMBERS = 2**24  # of float64, in one array of backward rows: 128 MiB
SOFTMAX_GAP = 2.0**-20  # 16 float32 units: exp of less is below 1, in whatever rounding


class CertifiedAccuracy(NamedTuple):
    """What `certified_accuracy` found.

    Attributes:
        accuracy: share of the samples that the model classifies correctly.
        certified: share of the samples proven to be classified correctly under every perturbation.
        count: number of samples.
    """

    accuracy: float
    certified: float
    count: int


def bounds(model, x, eps, *, method="crown", clip=None):
    """Encloses all outputs of a model for inputs within `eps` of `x`, at inference.

    For every input x' with |x' − x| <= eps in every element (and in the range `clip`), each output
    that the float32 model computes lies in [low, high]. See the module for the methods, for why
    this holds in floating point, and for what it assumes of the framework.

    Args:
        model: a built Sequential or functional model (with skips, shared layers, models as
            layers, several inputs and outputs), or one layer. Of Keras' layers: Dense, Conv1D to
            Conv3D, DepthwiseConv1D and 2D, SeparableConv1D and 2D, batch normalization, maximum
            and average pooling, reshaping, padding, cropping, upsampling, Add, Subtract, Average,
            Concatenate, Normalization, Rescaling, what is the identity at inference, softmax, and
            activations by name, as layers and as arguments; of keras.ops: add, subtract, relu,
            relu6, sigmoid, silu, softplus, softsign and tanh. Of this package's: all, but not a
            `Mixture` of functions that are not Keras'.
        x: what the model takes: float array `[samples, …]`, or a list or dictionary of such.
        eps: number >= 0, or an array that broadcasts with `x`. For several inputs also a list or
            dictionary like `x`.
        method: "crown", or "crown-ibp" or "ibp" for networks for which that takes too long.
        clip: optional `(low, high)`: perturbed inputs stay in this range, as pixels do.

    Returns:
        `(low, high)`, float32 arrays of the shape of the model's output (lists or dictionaries of
        arrays if the output is one).

    Raises:
        ValueError: for a model that is not built or has an input or a layer of another dtype than
            float32, a layer that is not supported or called with a mask, an `x` of another shape
            than the model takes, eps < 0, `x` outside of `clip`, or an unknown method.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "relu")])
    >>> model.set_weights([np.array([[1.0], [-2.0]]), np.array([0.5])])
    >>> low, high = bounds(model, np.array([[1.0, 0.5]]), eps=0.1)
    >>> low.round(3), high.round(3)  # 0.5 ± 0.3
    (array([[0.2]], dtype=float32), array([[0.8]], dtype=float32))
    """
    _checked_method(method)
    arrays = _inputs(model, x)
    boxes = _boxes(model, arrays, eps, clip)
    program = _Program(model, [array.shape[1:] for array in arrays])
    samples = len(arrays[0])
    outputs = [value.node for value in keras.tree.flatten(program.outputs)]
    rows = 1 if method == "ibp" else 2 * max(math.prod(program.steps[n].shape) for n in outputs)
    parts = []
    for part in _parts(samples, program.samples_at_once(rows)):
        run = _Run(program, [(low[part], high[part]) for low, high in boxes], method)
        parts.append([run.output(node) for node in outputs])
    results = [
        tuple(np.concatenate(side) for side in zip(*output, strict=True))
        for output in zip(*parts, strict=True)
    ]
    return tuple(
        keras.tree.pack_sequence_as(program.outputs, [result[side] for result in results])
        for side in (0, 1)
    )


def certified_accuracy(model, dataset, eps, *, method="crown", clip=None, batch_size=32):
    """Accuracy of a classifier, and how much of it no perturbation within `eps` can take.

    A sample is certified if the model classifies it correctly and, for every other class, the
    difference of the two scores is proven to be positive for every input within `eps`. Bounds
    of the differences are tighter than those of the scores. A softmax at the end does not change
    the order of scores; it is left out.

    The methods are tried in the order "ibp", "crown-ibp", "crown" up to `method`, each on the
    samples that the one before could not certify.

    Args:
        model: see `bounds`; one input and one output `[samples, classes]`, classes >= 2.
        dataset: `(x, y)` arrays, or an iterable of such batches, say a `tf.data.Dataset` or a
            generator. Labels y are integers, `[samples]` or `[samples, 1]`, or one-hot.
        eps: see `bounds`; a number, or an array that broadcasts with one sample.
        method: see `bounds`.
        clip: see `bounds`.
        batch_size: how many samples are processed at once, for `(x, y)` arrays.

    Returns:
        `CertifiedAccuracy`: accuracy, certified, count.

    Raises:
        ValueError: as `bounds`, and for a model that does not give class scores, labels of another
            shape or number than the scores, or a dataset without samples.

    Example:

    >>> certified_accuracy(model, (x_test[:100], y_test[:100]), eps=4 / 255, clip=(0, 1))
    CertifiedAccuracy(accuracy=0.97, certified=0.93, count=100)
    """
    _checked_method(method)
    correct = certified = count = 0
    program = None
    for x, y in _batches(dataset, batch_size):
        (x,) = _inputs(model, [x])
        if len(x) == 0:
            continue
        if program is None or x.shape[1:] != program.steps[0].shape:
            program = _Program(model, [x.shape[1:]])
            scores = _scores(model, program)
        labels = _labels(y, len(x), program.steps[scores].shape[0])
        ((low, high),) = _boxes(model, [x], eps, clip)
        predicted = ops.convert_to_numpy(model(ops.convert_to_tensor(x, "float32"), training=False))
        right = np.argmax(predicted, axis=-1) == labels
        proven = np.zeros(len(x), bool)
        for step in METHODS[: METHODS.index(method) + 1]:
            open_ = np.flatnonzero(right & ~proven)
            for part in _parts(len(open_), program.samples_at_once(program.steps[scores].shape[0])):
                some = open_[part]
                run = _Run(program, [(low[some], high[some])], step)
                # Scores that differ by less may be equal after a softmax.
                gap = SOFTMAX_GAP if program.outputs.node != scores else 0.0
                proven[some] = (run.margins(scores, labels[some]) > gap).all(axis=1)
        correct, certified = correct + int(right.sum()), certified + int(proven.sum())
        count += len(x)
    if count == 0:
        raise ValueError(
            f"certified_accuracy needs at least one sample. Received: dataset={dataset!r}"
        )
    return CertifiedAccuracy(correct / count, certified / count, count)


# What the user gave.


def _checked_method(method):
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}. Received: method={method!r}")


def _inputs(model, x):
    """The model's inputs as float64 arrays, in the order of `model.inputs`."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"Bounds need a Sequential or functional model that knows its inputs. Received: "
            f"{type(model).__name__} {model.name!r}, which is "
            + ("a subclass with a `call` of its own." if model.built else "not built.")
            + " Call a Sequential model on data; write a subclass as keras.Model(inputs, outputs)."
        )
    structure = _structure(model)
    if isinstance(structure, dict):
        if not isinstance(x, dict) or set(x) != set(structure):
            raise ValueError(
                f"The model takes a dictionary with the keys {sorted(structure)}. "
                f"Received: {sorted(x) if isinstance(x, dict) else type(x).__name__}"
            )
        x = [x[key] for key in sorted(x)]  # the order in which Keras flattens it
    elif len(model.inputs) == 1 and not (isinstance(x, list) and _is_array(x[0])):
        x = [x]
    if len(x) != len(model.inputs):
        raise ValueError(f"The model has {len(model.inputs)} inputs. Received: {len(x)}")
    arrays = [_numbers(array) for array in x]
    for array, wanted in zip(arrays, model.inputs, strict=True):
        shape = tuple(wanted.shape)
        if len(shape) != array.ndim or any(
            w not in (None, s) for w, s in zip(shape[1:], array.shape[1:], strict=True)
        ):
            raise ValueError(
                f"The model's input {wanted.name!r} has the shape {shape}, samples first. "
                f"Received: shape {array.shape}"
            )
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(
            "All inputs need the same number of samples. "
            f"Received: shapes {[array.shape for array in arrays]}"
        )
    if not len(arrays[0]):
        raise ValueError(
            f"Bounds need at least one sample. Received: shapes {[a.shape for a in arrays]}"
        )
    return arrays


def _structure(model):
    return None if isinstance(model, keras.Sequential) else model.input


def _is_array(x):
    return isinstance(x, np.ndarray) or ops.is_tensor(x)


def _numpy(x):
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)


def _numbers(x):
    x = _numpy(x)
    if x.dtype.kind not in "fiub" or x.ndim == 0 or not np.isfinite(x).all():
        raise ValueError(
            "Bounds need arrays of finite numbers, samples first. "
            f"Received: dtype={x.dtype}, shape={x.shape}"
        )
    return x.astype("float64")


def _boxes(model, arrays, eps, clip):
    """The intervals of the inputs: float32 numbers, as float64 arrays."""
    structure = _structure(model)
    if isinstance(structure, dict) and isinstance(eps, dict):
        radii = [eps[key] for key in sorted(structure)]
    elif len(arrays) > 1 and isinstance(eps, (list, tuple)):
        radii = eps
    else:
        radii = [eps] * len(arrays)
    return [_box(array, radius, clip) for array, radius in zip(arrays, radii, strict=True)]


def _box(x, eps, clip):
    eps = np.asarray(eps, "float64")
    if not (eps >= 0).all() or np.isinf(eps).any():  # also nan
        raise ValueError(f"`eps` must be finite and >= 0. Received: eps={eps}")
    try:
        eps = np.broadcast_to(eps, x.shape)
    except ValueError:
        raise ValueError(
            "`eps` must be a number or broadcast with the input. "
            f"Received: eps of shape {eps.shape} for an input of shape {x.shape}"
        ) from None
    # A float64 input near the box's edge may be rounded to a float32 just outside of it.
    low, high = _outward(*_moved(x - eps, x + eps, eps > 0))
    if clip is not None:
        try:
            least, largest = map(float, clip)
        except (TypeError, ValueError):
            least, largest = 1.0, 0.0
        if not least < largest:
            raise ValueError(
                f"`clip` must be two numbers (low, high), low < high. Received: {clip!r}"
            )
        if (x < least).any() or (x > largest).any():
            raise ValueError(
                f"The inputs must lie in the range `clip`. Received: clip={clip}, inputs from "
                f"{x.min()} to {x.max()}"
            )
        least, largest = _outward(np.float64(least), np.float64(largest))
        low, high = np.maximum(low, least), np.minimum(high, largest)
    return low, high


def _batches(dataset, batch_size):
    if isinstance(dataset, (tuple, list)) and len(dataset) == 2 and _is_array(dataset[0]):
        x, y = dataset
        if len(x) != len(y):
            raise ValueError(
                f"`dataset` needs as many labels as samples. Received: {len(x)} samples, "
                f"{len(y)} labels"
            )
        for part in _parts(len(x), batch_size):
            yield x[part], y[part]
        return
    for batch in dataset:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                "`dataset` must be a pair of arrays (x, y) or an iterable of such batches. "
                f"Received a batch of type {type(batch).__name__}."
            )
        yield batch


def _labels(y, count, classes):
    y = _numpy(y)
    if y.shape == (count, classes):  # one-hot
        y = np.argmax(y, axis=-1)
    elif y.shape == (count, 1):
        y = y[:, 0]
    whole = y.shape == (count,) and y.dtype.kind in "iufb" and (y == np.floor(y)).all()
    if not whole or (y < 0).any() or (y >= classes).any():
        raise ValueError(
            f"Labels must be integers from 0 to {classes - 1}, or one-hot: {count} of them, or an "
            f"array of shape ({count}, {classes}). Received: shape {y.shape}, dtype {y.dtype}"
        )
    return y.astype(int)


def _scores(model, program):
    """The step that gives the class scores: the output, or what is before its softmax."""
    node = getattr(program.outputs, "node", None)
    shape = () if node is None else program.steps[node].shape
    if len(program.steps) < 2 or len(model.inputs) != 1 or len(shape) != 1 or shape[0] < 2:
        raise ValueError(
            "certified_accuracy needs a model with one input and one output of shape "
            "[samples, classes], classes >= 2. "
            f"Received: {len(model.inputs)} input(s), output shape {model.output_shape}"
        )
    step = program.steps[node]
    return step.inputs[0] if isinstance(step.operation, _Softmax) else node


def _parts(count, size):
    return [slice(start, start + size) for start in range(0, count, size)]


# Floating point.


def _outward(low, high):
    """The narrowest float32 interval around a float64 one."""
    with np.errstate(over="ignore"):
        low32, high32 = low.astype("float32"), high.astype("float32")
        low32 = np.where(low32 > low, np.nextafter(low32, np.float32(-np.inf)), low32)
        high32 = np.where(high32 < high, np.nextafter(high32, np.float32(np.inf)), high32)
    return low32.astype("float64"), high32.astype("float64")


def _moved(low, high, where=True):
    """One float64 step outwards: what one rounding took."""
    return (
        np.where(where, np.nextafter(low, -np.inf), low),
        np.where(where, np.nextafter(high, np.inf), high),
    )


def _gamma(n):
    if n * UNIT >= 0.5:
        raise ValueError(
            f"A sum of {n} float32 terms may have no correct digit: there is no bound to give."
        )
    return n * UNIT / (1 - n * UNIT)


def _magnitude(low, high):
    return np.maximum(np.abs(low), np.abs(high))


def _over_box(a, low, high):
    """A lower bound of Σ a z for every z in [low, high], computed in float64.

    Args:
        a: rows, `[samples, rows, elements]`.
        low, high: `[samples, elements]`.
    """
    positive, negative = np.maximum(a, 0), np.minimum(a, 0)
    value = _product(positive, low) + _product(negative, high)
    mass = _product(positive - negative, _magnitude(low, high))
    return value - (a.shape[-1] + 8) * 2.0**-52 * mass


def _product(rows, vector):
    return np.matmul(rows, vector[..., None])[..., 0]


# Affine layers: y = Σ_i T_i x_i + b.


class _Affine:
    """An affine function of one or several arrays.

    A subclass has `linear(*xs, absolute=False)`, Σ_i T_i x_i or with |T_i| (each x `[n, …]`), and
    `transposed(rows)`, the list of T_i^T rows; all float64.

    Attributes:
        bias: b, broadcasts with one sample's output.
        bias_magnitude: the sum of the absolute values of what the framework adds up to b.
        terms: how many roundings one term of the sum goes through in the framework.
        largest_weight: max |T|.
        workspace: how many numbers a product takes on the way, for one sample.
    """

    bias = bias_magnitude = 0.0
    terms = 0
    workspace = 0
    largest_weight = 1.0

    def interval(self, *boxes):
        centre = [low / 2 + high / 2 for low, high in boxes]
        # The radius around the rounded centre.
        radius = [
            np.nextafter(np.maximum(high - middle, middle - low), np.inf)
            for middle, (low, high) in zip(centre, boxes, strict=True)
        ]
        y = self.linear(*centre) + self.bias
        spread = self.linear(*radius, absolute=True) + self.error(*boxes)
        return y - spread, y + spread

    def mass(self, *boxes):
        """M of the module's text."""
        magnitudes = [_magnitude(low, high) for low, high in boxes]
        return self.linear(*magnitudes, absolute=True) + self.bias_magnitude

    def error(self, *boxes):
        """e of the module's text."""
        largest = sum(
            _magnitude(*box).reshape(len(box[0]), -1).max(axis=1, initial=0.0) for box in boxes
        )
        mass = self.mass(*boxes)
        flushed = (self.terms + 2) * TINY * (1 + largest + self.largest_weight)
        return _gamma(self.terms + 4) * mass + flushed.reshape(-1, *[1] * (mass.ndim - 1))

    def relaxation(self, *boxes):
        error = self.error(*boxes)
        return None, self.bias - error, self.bias + error

    def pull(self, rows, lines):
        samples, count = rows.shape[:2]
        rows = rows.reshape(samples * count, *rows.shape[2:])
        return [a.reshape(samples, count, *a.shape[1:]) for a in self.transposed(rows)]


class _Dense(_Affine):
    def __init__(self, kernel, bias):
        self.kernel = kernel
        self.bias, self.bias_magnitude = bias, np.abs(bias)
        self.terms = kernel.shape[0]
        self.largest_weight = np.abs(kernel).max()

    def linear(self, x, absolute=False):
        return x @ (np.abs(self.kernel) if absolute else self.kernel)

    def transposed(self, rows):
        return [rows @ self.kernel.T]


class _Convolution(_Affine):
    """A convolution of any rank, channels last, as a product with a matrix of patches.

    Args:
        windows: `_windows` of the spatial axes.
        kernel: `[taps, channels / groups, groups, filters / groups]`.
        bias: `[filters]`.
        shape: of one input.
        output: spatial sizes of the output.
    """

    def __init__(self, windows, kernel, bias, shape, output):
        self.windows, self.shape, self.output = windows, shape, output
        self.workspace = windows.size * shape[-1]
        self.kernel = np.transpose(kernel, (2, 0, 1, 3))  # [groups, taps, channels, filters]
        self.bias, self.bias_magnitude = bias, np.abs(bias)
        self.terms = kernel.shape[0] * kernel.shape[1]
        self.largest_weight = np.abs(kernel).max()

    def linear(self, x, absolute=False):
        groups, taps, channels, filters = self.kernel.shape
        n, size = len(x), self.windows.shape[0]
        x = x.reshape(n, -1, groups * channels)
        x = np.concatenate([x, np.zeros((n, 1, groups * channels))], axis=1)
        patches = x[:, self.windows].reshape(n * size, taps, groups, channels)
        patches = patches.transpose(2, 0, 1, 3).reshape(groups, n * size, taps * channels)
        kernel = self.kernel.reshape(groups, taps * channels, filters)
        y = patches @ (np.abs(kernel) if absolute else kernel)  # [groups, n * size, filters]
        return y.transpose(1, 0, 2).reshape(n, *self.output, groups * filters)

    def transposed(self, rows):
        groups, taps, channels, filters = self.kernel.shape
        n, size = len(rows), self.windows.shape[0]
        rows = rows.reshape(n * size, groups, filters).transpose(1, 0, 2)
        elements = math.prod(self.shape[:-1])
        x = np.zeros((n, elements + 1, groups * channels))
        for tap in range(taps):
            part = rows @ self.kernel[:, tap].transpose(0, 2, 1)  # [groups, n * size, channels]
            part = part.transpose(1, 0, 2).reshape(n, size, groups * channels)
            # No two windows have the same element at the same tap.
            x[:, self.windows[:, tap]] += part
        return [x[:, :-1].reshape(n, *self.shape)]


class _Scale(_Affine):
    """scale · x + bias, element by element; both broadcast with one sample."""

    def __init__(self, scale, bias, bias_magnitude, terms):
        self.scale, self.bias, self.bias_magnitude = scale, bias, bias_magnitude
        self.terms = terms
        self.largest_weight = np.abs(scale).max()

    def linear(self, x, absolute=False):
        return x * (np.abs(self.scale) if absolute else self.scale)

    def transposed(self, rows):
        return [rows * self.scale]


class _Sum(_Affine):
    """Σ_i weight_i x_i of arrays of one shape."""

    def __init__(self, weights):
        self.weights = weights
        self.terms = len(weights) + 2

    def linear(self, *xs, absolute=False):
        weights = np.abs(self.weights) if absolute else self.weights
        return sum(w * x for w, x in zip(weights, xs, strict=True))

    def transposed(self, rows):
        return [w * rows for w in self.weights]


class _Mean(_Affine):
    """The mean of some elements: `places` are flat indices, `[outputs, taps]`, −1 for none."""

    def __init__(self, places, shape, output):
        self.places, self.shape, self.output = places, shape, output
        self.count = (places >= 0).sum(axis=1)
        self.terms = places.shape[1] + 2

    def linear(self, x, absolute=False):
        return (_taken(x, self.places, 0.0).sum(axis=2) / self.count).reshape(-1, *self.output)

    def transposed(self, rows):
        rows = rows.reshape(len(rows), -1) / self.count
        x = np.zeros((len(rows), math.prod(self.shape) + 1))
        for tap in range(self.places.shape[1]):
            x[:, self.places[:, tap]] += rows
        return [x[:, :-1].reshape(-1, *self.shape)]


class _Moved(_Affine):
    """Elements in other places: y = x[places], 0 where the place is −1. Exact."""

    def __init__(self, places, shape, output):
        self.places, self.shape, self.output = places, shape, output
        used = places[places >= 0]
        self.copies = int(np.bincount(used).max(initial=1)) if used.size else 1

    def linear(self, x, absolute=False):
        return _taken(x, self.places[:, None], 0.0)[:, :, 0].reshape(-1, *self.output)

    def interval(self, box):
        return self.linear(box[0]), self.linear(box[1])

    def error(self, box):
        # Only the backward sums of `copies` rows round.
        return self.copies * 2.0**-52 * self.linear(_magnitude(*box))

    def transposed(self, rows):
        rows = rows.reshape(len(rows), -1)
        x = np.zeros((len(rows), math.prod(self.shape) + 1))
        if self.copies == 1:
            x[:, self.places] = rows
        else:
            np.add.at(x, (slice(None), self.places), rows)
        return [x[:, :-1].reshape(-1, *self.shape)]


class _Concatenated(_Affine):
    """Arrays side by side along an axis. Exact."""

    def __init__(self, axis, sizes):
        self.axis, self.ends = axis, list(itertools.accumulate(sizes))[:-1]

    def linear(self, *xs, absolute=False):
        return np.concatenate(xs, axis=self.axis)

    def interval(self, *boxes):
        return tuple(self.linear(*side) for side in zip(*boxes, strict=True))

    def error(self, *boxes):
        return 0.0 * self.linear(*(low for low, _ in boxes))

    def transposed(self, rows):
        return np.split(rows, self.ends, axis=self.axis)


def _taken(x, places, empty):
    """x's elements at flat `places` [outputs, taps]: `[n, outputs, taps]`."""
    x = np.concatenate([x.reshape(len(x), -1), np.full((len(x), 1), empty)], axis=1)
    return x[:, places]


# Other layers. `interval` maps boxes to a box; `relaxation` gives lines, low and high such that
# the output is between line + low and line + high; `pull` puts the lines into rows.


class _Maximum:
    """The largest of some elements; `places` as in `_Mean`."""

    def __init__(self, places, shape, output):
        self.places, self.shape, self.output = places, shape, output

    def interval(self, box):
        low, high = (
            _taken(side, self.places, -np.inf).max(axis=2).reshape(-1, *self.output)
            for side in _flushed(*box)
        )
        # Of numbers that count as 0, any may be returned.
        return np.where(low < TINY, np.minimum(low, -TINY), low), _flushed(low, high)[1]

    def relaxation(self, box):
        low, high = (_taken(side, self.places, -np.inf) for side in _flushed(*box))
        # The element with the largest low: a lower line, and the upper one too where no other
        # element can be larger. Else the upper line is the constant.
        chosen = low.argmax(axis=2)
        others = np.where(np.arange(low.shape[2]) == chosen[..., None], -np.inf, high)
        certain = others.max(axis=2) <= low.max(axis=2)
        largest = np.where(certain, 0.0, high.max(axis=2))
        # What counts as 0; and in the backward pass an element's rows from as many windows as there
        # are places in one are added up.
        empty = np.where(self.places < 0, 0.0, 1.0)
        magnitude = (_taken(_magnitude(*box), self.places, 0.0) * empty).max(axis=2)
        error = 2 * TINY + self.places.shape[1] * 2.0**-52 * magnitude
        shape = (-1, *self.output)
        return (chosen, certain), (-error).reshape(shape), (largest + error).reshape(shape)

    def pull(self, rows, lines):
        chosen, certain = lines
        samples, count = rows.shape[:2]
        rows = rows.reshape(samples, count, -1)
        rows = np.where(certain[:, None], rows, np.maximum(rows, 0))
        x = np.zeros((samples, count, math.prod(self.shape) + 1))
        for tap in range(self.places.shape[1]):
            x[:, :, self.places[:, tap]] += np.where(chosen[:, None] == tap, rows, 0)
        return [x[:, :, :-1].reshape(samples, count, *self.shape)]


class _ElementWise:
    """An activation; `function` has `interval`, `slopes` and `error` of float32 arrays."""

    def __init__(self, function):
        self.function = function

    def interval(self, box):
        return _flushed(*self.function.interval(*_flushed(*_outward(*box))))

    def relaxation(self, box):
        low, high = _flushed(*_outward(*box))
        (a, b), (c, d) = _lines(self.function, low, high)
        # Rows times slopes, times values, are rounded too.
        slack = 2.0**-50 * _magnitude(a, c) * _magnitude(low, high) + 2 * TINY
        return (a[:, None], c[:, None]), b - slack, d + slack

    def pull(self, rows, lines):
        below, above = lines
        return [np.maximum(rows, 0) * below + np.minimum(rows, 0) * above]


class _Softmax:
    """exp(x_i) / Σ_j exp(x_j) along an axis: the largest where x_i is and the others are not.

    The framework subtracts the maximum, at most D away, rounded: a relative error of D u in the
    exponential. Exponential (some units), sum and quotient: less than n + 32 units.
    """

    def __init__(self, axis):
        self.axis = axis

    def interval(self, box):
        axis, n = self.axis, box[0].shape[self.axis]
        top = box[1].max(axis=axis, keepdims=True)
        # Differences beyond 800 change nothing: exp(-800) is 0 in float32.
        low, high = (np.maximum(side - top, -800.0) for side in box)
        distance = np.minimum(-low.min(axis=axis, keepdims=True), 110.0)
        relative = (n + 32 + distance) * 2 * UNIT
        results = []
        for own, other in ((low, high), (high, low)):
            total = np.exp(other).sum(axis=axis, keepdims=True) - np.exp(other)
            # The others' sum by differences may lose digits: it is within n roundings of the sum.
            wrong = (n + 8) * 2.0**-52 * np.exp(other).sum(axis=axis, keepdims=True)
            total = np.maximum(total + (wrong if own is low else -wrong), 0.0)
            results.append(np.exp(own) / (np.exp(own) + total))
        return (
            np.maximum(results[0] * (1 - relative) - 2 * TINY, 0.0),
            np.minimum(results[1] * (1 + relative) + 2 * TINY, 1 + relative),
        )


def _flushed(low, high):
    """Numbers below the normal ones may have become 0."""
    return (
        np.where(np.abs(low) < TINY, np.minimum(low, 0.0), low),
        np.where(np.abs(high) < TINY, np.maximum(high, 0.0), high),
    )


def _lines(function, low, high):
    """Two lines around the float32 values of an activation on [low, high].

    The interval is cut into pieces; on each the function's slopes are in [p, q]. For a candidate
    slope s, f(x) − s x has slopes in [p − s, q − s], and this bounds it on the piece by its values
    at the two ends. Of the candidates (the chord, the slopes at both ends and in the middle, and
    0) the line with the smallest area between itself and the function is taken.

    Args:
        function: see `_ElementWise`.
        low, high: float32 numbers, as float64 arrays `[samples, …]`.

    Returns:
        `(a, b), (c, d)`: a x + b <= f(x) <= c x + d.
    """
    steps = np.arange(PIECES + 1).reshape(-1, *[1] * low.ndim) / PIECES
    points = low + (high - low) * steps
    points[-1] = high
    # Most kinks are at 0: a piece of their own for them.
    around_zero = [np.clip(edge, low, high) for edge in (-TINY, TINY)]
    points = np.sort(np.concatenate([points, around_zero]), axis=0)
    points = points.astype("float32").astype("float64")  # monotone: ends and order stay
    count = len(points)

    def on_pieces(method, *sides):
        flat = [side.reshape(-1, *low.shape[1:]) for side in sides]
        result = method(*flat)
        return [np.asarray(r, "float64").reshape(sides[0].shape) for r in result]

    below, above = on_pieces(function.interval, points, points)
    least, largest = on_pieces(function.slopes, points[:-1], points[1:])
    whole_low, whole_high = function.interval(low, high)
    width = points[1:] - points[:-1]

    # How far the layer is from the exact f; denormal numbers may count as 0, and a kink's place
    # is known to some float64 units only.
    steepest = _magnitude(least, largest).max(axis=0)
    with np.errstate(invalid="ignore"):
        error = function.error(low, high) + (2.0**-40 * _magnitude(low, high) + TINY) * steepest
    error = np.where(np.isnan(error), np.inf, error)
    below, above = below - error, above + error  # now bounds of f

    middle = (low + high) / 2
    span = np.where(high > low, high - low, 1.0)
    inner = (least + largest) / 2
    candidates = [
        (above[-1] - below[0]) / span,
        inner[0],
        inner[-1],
        inner[(count - 1) // 2],
    ]
    best_low = (np.zeros_like(low), np.asarray(whole_low, "float64"))
    best_high = (np.zeros_like(low), np.asarray(whole_high, "float64"))
    for slope in candidates:
        slope = np.where(np.isfinite(slope), slope, 0.0)
        # Of f − slope x, rounded outwards.
        rounding = 2.0**-51 * (np.maximum(np.abs(below), np.abs(above)) + np.abs(slope * points))
        top = above - slope * points + rounding
        bottom = below - slope * points - rounding
        rounding = 2.0**-51 * (np.abs(slope) + _magnitude(least, largest))
        p, q = least - slope - rounding, largest - slope + rounding
        highest = _largest(top[:-1], top[1:], p, q, width) + error
        lowest = -_largest(-bottom[:-1], -bottom[1:], -q, -p, width) - error
        best_low = _better(best_low, (slope, lowest), middle, 1)
        best_high = _better(best_high, (slope, highest), middle, -1)
    return best_low, best_high


def _largest(left, right, p, q, width):
    """The largest value, over all pieces, of a function with these ends and slopes in [p, q]."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Where the line from the left, upwards, meets the one from the right.
        crossing = np.clip((right - left - p * width) / (q - p), 0.0, width)
        inside = left + q * crossing
    value = np.where(q <= 0, left, np.where(p >= 0, right, np.maximum(inside, right)))
    value = value + 2.0**-50 * np.abs(value)
    return np.where(np.isnan(value), np.inf, value).max(axis=0)


def _better(best, other, middle, sign):
    """Of two lines the one that is higher (sign 1) or lower (−1) in the middle."""
    with np.errstate(invalid="ignore"):
        gain = sign * (other[0] * middle + other[1] - best[0] * middle - best[1])
    better = gain > 0  # not for nan
    return tuple(np.where(better, o, b) for o, b in zip(other, best, strict=True))


class _Hinge:
    """a x for x < 0, min(x, largest) beyond: the ReLU family. Only the product rounds."""

    def __init__(self, slope, largest=np.inf):
        self.slope = np.asarray(slope, "float64")
        with np.errstate(over="ignore"):
            self.largest = float(np.float32(largest))
        self.exact = bool(np.isin(self.slope, (0.0, 1.0)).all())

    def _value(self, x):
        return np.where(x < 0, self.slope * x, np.minimum(x, self.largest))

    def interval(self, low, high):
        ends = [self._value(low), self._value(np.clip(0.0, low, high)), self._value(high)]
        error = self.error(low, high)
        return np.minimum.reduce(ends) - error, np.maximum.reduce(ends) + error

    def slopes(self, low, high):
        left = np.where(low < 0, self.slope, np.where(low < self.largest, 1.0, 0.0))
        right = np.where(high > self.largest, 0.0, np.where(high > 0, 1.0, self.slope))
        inner = np.where((low < 0) & (high > 0), 1.0, left)
        return np.minimum.reduce([left, inner, right]), np.maximum.reduce([left, inner, right])

    def error(self, low, high):
        # A number that counts as 0 may be returned as it is.
        error = np.where((low < TINY) & (high > -TINY), TINY, 0.0)
        if self.exact:
            return error
        # The slope is rounded to float32, the product too, and PReLU's sum with 0 is exact.
        return error + 4 * UNIT * np.abs(self.slope * np.minimum(low, 0.0))


class _Learned:
    """A `LearnableActivation`, enclosed by what it says of itself."""

    def __init__(self, layer):
        self.layer = layer

    def interval(self, low, high):
        return self.layer.interval(low, high)

    def slopes(self, low, high):
        return self.layer.slope_interval(low, high)

    def error(self, low, high):
        return activation_bounds.rounding_error(self.layer, low, high)


class _OfKeras:
    """A function of `keras.activations`."""

    def __init__(self, name):
        expression = expressions.KERAS[name](expressions.sympy(), expressions.symbol("x"))
        # Of an expression without parameters none may be changed by rounding.
        root, dtype = intervals.tree(expression), "float32"
        self.shape = activation_bounds.Shape(root, [], dtype, dtype, scaled=False)

    def interval(self, low, high):
        return self.shape.range(low, high)

    def slopes(self, low, high):
        return self.shape.slopes(low, high)

    def error(self, low, high):
        return self.shape.errors(low, high)[1]


# The network as a list of steps.


class _Step(NamedTuple):
    operation: object  # None: an input
    inputs: tuple
    shape: tuple


class _Value:
    """What flows through the model while it is read: the output of one step."""

    def __init__(self, program, node):
        self.program, self.node = program, node

    @property
    def shape(self):
        return self.program.steps[self.node].shape

    def then(self, operation, *others):
        """The value after one more operation, which may take other values too."""
        inputs = (self, *others)
        if isinstance(operation, _Affine):
            zeros = [np.zeros((1, *value.shape)) for value in inputs]
            shape = operation.linear(*zeros).shape[1:]
        else:
            shape = getattr(operation, "output", self.shape)
        nodes = tuple(value.node for value in inputs)
        self.program.steps.append(_Step(operation, nodes, tuple(shape)))
        return _Value(self.program, len(self.program.steps) - 1)


class _Program:
    """A model, read once: its weights as float64, its layers as steps in order.

    Args:
        model: a Keras model.
        shapes: of one sample of each input, in the order of `model.inputs`.
    """

    def __init__(self, model, shapes):
        self.steps = []
        values = []
        for shape in shapes:
            self.steps.append(_Step(None, (), shape))
            values.append(_Value(self, len(self.steps) - 1))
        self.outputs = _read(model, values[0] if len(values) == 1 else values)

    def samples_at_once(self, rows):
        """How many samples, with so many backward rows each, keep arrays within `NUMBERS`."""
        rows = max(rows, 4 * PIECES)  # lines are found on all pieces at once
        return max(1, min(256, NUMBERS // (self.largest * rows)))

    @functools.cached_property
    def largest(self):
        """How many numbers the largest array holds, for one sample."""
        return max(
            max(math.prod(step.shape), getattr(step.operation, "workspace", 0))
            for step in self.steps
        )

    @functools.cached_property
    def levels(self):
        """How many operations that are not mere moves lie before each step, at most."""
        levels = []
        for operation, inputs, _ in self.steps:
            moves = operation is None or (isinstance(operation, _Affine) and not operation.terms)
            levels.append(max((levels[i] for i in inputs), default=0) + (not moves))
        return levels


class _Run:
    """The intervals of every step of a program, for some samples.

    Args:
        program: a `_Program`.
        boxes: of each input, low and high.
        method: see `bounds`.
    """

    def __init__(self, program, boxes, method):
        self.program, self.steps = program, program.steps
        self.method = method
        self.tight = set()  # whose intervals lines have narrowed
        self.boxes = []
        self.relaxations = {}
        self.lost = np.zeros(len(boxes[0][0]), bool)  # where float32 may overflow
        for node, step in enumerate(self.steps):
            if step.operation is None:
                self.boxes.append(boxes[node])
                continue
            if self._wants_tight_inputs(step.operation):
                for source in step.inputs:
                    # An activation's own result is as tight as its input allows.
                    if isinstance(self.steps[source].operation, _Affine):
                        self._tighten(source)
            inputs = [self.boxes[source] for source in step.inputs]
            self.boxes.append(self._finite(step.operation, inputs))

    def _wants_tight_inputs(self, operation):
        if isinstance(operation, _Affine) or self.method == "ibp":
            return False
        # No line passes through an operation without a relaxation.
        return self.method == "crown" or not hasattr(operation, "relaxation")

    def output(self, node):
        """The bounds of one output, as float32."""
        if self.method != "ibp":
            self._tighten(node)
        low, high = _outward(*self.boxes[node])
        lost = self.lost.reshape(-1, *[1] * (low.ndim - 1))
        with np.errstate(over="ignore"):
            return (
                np.where(lost, -np.inf, low).astype("float32"),
                np.where(lost, np.inf, high).astype("float32"),
            )

    def margins(self, node, labels):
        """A lower bound of each score's distance below the label's; ∞ for the label itself."""
        classes = self.steps[node].shape[0]
        samples = np.arange(len(labels))
        rows = np.repeat(-np.eye(classes)[None], len(labels), axis=0)
        rows[samples, :, labels] += 1
        margins = self._lower(node, rows)
        margins[samples, labels] = np.inf
        margins[self.lost] = -np.inf
        return margins

    def _finite(self, operation, inputs):
        """The operation's interval; samples for which it may overflow are noted, and go on as 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = operation.interval(*inputs)
            largest = _magnitude(low, high)
            if isinstance(operation, _Affine) and operation.terms:
                largest = np.maximum(largest, operation.mass(*inputs))
            lost = ~(largest.reshape(len(low), -1) <= FLOAT32.max).all(axis=1)
        self.lost |= lost
        low[lost] = high[lost] = 0
        return low, high

    def _tighten(self, node):
        """Narrows a step's interval by lines from the input."""
        # Of one operation on the inputs the interval is as tight as any line.
        if node in self.tight or self.program.levels[node] < 2:
            return
        self.tight.add(node)
        low, high = self.boxes[node]
        samples, size = len(low), math.prod(low.shape[1:])
        flat_low, flat_high = low.reshape(samples, -1).copy(), high.reshape(samples, -1).copy()
        for part in _parts(size, max(1, NUMBERS // (2 * self.program.largest * samples))):
            count = len(range(size)[part])
            rows = np.zeros((samples, 2 * count, size))
            rows[:, np.arange(count), np.arange(size)[part]] = 1
            rows[:, count + np.arange(count), np.arange(size)[part]] = -1
            lower = self._lower(node, rows.reshape(samples, 2 * count, *low.shape[1:]))
            flat_low[:, part] = np.fmax(flat_low[:, part], lower[:, :count])
            flat_high[:, part] = np.fmin(flat_high[:, part], -lower[:, count:])
        self.boxes[node] = flat_low.reshape(low.shape), flat_high.reshape(high.shape)

    def _lower(self, target, rows):
        """A lower bound of Σ rows · (the target's value), `[samples, rows]`."""
        with np.errstate(over="ignore", invalid="ignore"):  # ±∞ and nan say nothing
            return self._lower_or_nan({target: rows}, target)

    def _lower_or_nan(self, waiting, target):
        total = mass = 0.0
        for node in range(target, -1, -1):
            rows = waiting.pop(node, None)
            if rows is None:
                continue
            step = self.steps[node]
            if step.operation is None or self._stops(step.operation):
                low, high = self.boxes[node]
            else:
                lines, low, high = self._relaxation(node)
                for source, pulled in zip(
                    step.inputs, step.operation.pull(rows, lines), strict=True
                ):
                    if source in waiting:
                        pulled = pulled + waiting[source]
                        # That sum was rounded.
                        reach = 2.0**-52 * _magnitude(*self.boxes[source])
                        total = total + _over_box(*_flat(pulled, -reach, reach))
                    waiting[source] = pulled
            part = _over_box(*_flat(rows, low, high))
            total, mass = total + part, mass + np.abs(part)
        return total - len(self.steps) * 2.0**-51 * mass

    def _stops(self, operation):
        """Whether only the interval of an operation's result is used."""
        return not hasattr(operation, "relaxation") or (
            self.method == "ibp" and not isinstance(operation, _Affine)
        )

    def _relaxation(self, node):
        if node not in self.relaxations:
            step = self.steps[node]
            inputs = [self.boxes[source] for source in step.inputs]
            lines, low, high = step.operation.relaxation(*inputs)
            shape = (len(self.lost), *step.shape)
            offsets = (np.broadcast_to(side, shape) for side in (low, high))
            self.relaxations[node] = lines, *offsets
        return self.relaxations[node]


def _flat(rows, low, high):
    samples = len(low)
    return (
        rows.reshape(samples, rows.shape[1], -1),
        low.reshape(samples, -1),
        high.reshape(samples, -1),
    )


# What each layer is.


def _read(layer, inputs):
    """What a layer gives for symbolic `_Value`s: further steps of their program."""
    kind = type(layer)
    if isinstance(layer, keras.Model):
        for tensor in getattr(layer, "inputs", None) or []:
            if tensor.dtype != "float32":  # what comes is cast to that, before any layer
                raise ValueError(
                    f"Bounds need models whose inputs are float32. Received: {kind.__name__} "
                    f"{layer.name!r} with the input {tensor.name!r} of dtype {tensor.dtype}. Build "
                    f"it with keras.Input({tuple(tensor.shape[1:])})."
                )
    if isinstance(layer, keras.Sequential) and kind.call is keras.Sequential.call:
        for inner in layer.layers:
            inputs = _read(inner, inputs)
        return inputs
    if isinstance(layer, Functional) and kind.call is Functional.call:
        return layer._run_through_graph(inputs, lambda operation: _reading(operation))
    rule = _learned if isinstance(layer, LearnableActivation) else _RULES.get(kind)
    if rule is None:
        raise ValueError(_unsupported(layer))
    if layer.compute_dtype != "float32" or getattr(layer, "quantization_mode", None):
        raise ValueError(
            f"Bounds are of float32 layers without quantization. Received: {kind.__name__} "
            f"{layer.name!r} of dtype {layer.dtype_policy.name}"
        )
    return rule(layer, inputs)


def _reading(operation):
    def read(*args, **kwargs):
        # In the order of the parameters of `call`; at inference the model says what `training` is.
        given = inspect.signature(operation.call).bind(*args, **kwargs).arguments
        if not isinstance(operation, keras.layers.Layer):  # keras.ops in a functional model
            rule = _OPERATIONS.get(type(operation))
            if rule is None:
                raise ValueError(_unsupported(operation))
            return rule(operation, *given.values())
        first, *others = given
        extra = [
            name
            for name in others
            if name != "training" and not (name == "mask" and given[name] is None)
        ]
        inputs = given[first]
        if extra or not all(isinstance(v, _Value) for v in keras.tree.flatten(inputs)):
            raise ValueError(
                f"There are no bounds through {type(operation).__name__} {operation.name!r} called "
                "with more than outputs of other layers. Received: "
                + (", ".join(extra) if extra else f"a constant in `{first}`")
            )
        return _read(operation, inputs)

    return read


def _unsupported(operation):
    kind = type(operation)
    names = sorted({rule.__name__ for rule in _RULES})
    return (
        f"There are no bounds through {kind.__name__} {operation.name!r} "
        f"({kind.__module__}.{kind.__name__}). Supported are Sequential and functional models of "
        f"{', '.join(names)}, {', '.join(kind.__name__ for kind in _OPERATIONS)} of keras.ops, and "
        "every LearnableActivation. A class that is derived "
        "from one of these may compute something else and is not taken for it."
    )


def _array(weight):
    return ops.convert_to_numpy(weight).astype("float64")


def _activated(layer, value):
    """The value after a layer's `activation` argument."""
    activation = layer.activation
    if activation is None or activation is keras.activations.linear:
        return value
    if isinstance(activation, keras.layers.Layer):
        return _read(activation, value)
    if activation is keras.activations.softmax:
        return value.then(_Softmax(-1))
    name = expressions.keras_name(activation)
    if name is None:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} has an activation without known bounds. "
            f"Received: {activation!r}. Use {', '.join(expressions.KERAS)}, softmax, or a layer."
        )
    return value.then(_ElementWise(_of_keras(name)))


@functools.cache
def _of_keras(name):
    """The function of one of `expressions.KERAS`."""
    hinges = {"relu": _Hinge(0), "relu6": _Hinge(0, 6.0), "leaky_relu": _Hinge(0.2)}
    return hinges.get(name) or _OfKeras(name)


def _dense(layer, value):
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.kernel.shape[-1])
    return _activated(layer, value.then(_Dense(_array(layer.kernel), bias)))


def _windows(sizes, window, strides, padding, dilation):
    """Which elements each window covers.

    Args:
        sizes, window, strides, dilation: integers, one for each spatial axis.
        padding: "valid", "same" or "causal".

    Returns:
        Flat indices of elements `[windows, taps]`, −1 outside, and the sizes of the output.
    """
    index = np.arange(math.prod(sizes)).reshape(sizes)
    outputs, paddings = [], []
    for size, k, stride, d in zip(sizes, window, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        before = after = 0
        if padding == "same":
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            before, after = total // 2, total - total // 2
        elif padding == "causal":
            before = reach - 1
        outputs.append((size + before + after - reach) // stride + 1)
        paddings.append((before, after))
    index = np.pad(index, paddings, constant_values=-1)
    grids = [
        np.arange(output)[:, None] * stride + np.arange(k) * d
        for output, k, stride, d in zip(outputs, window, strides, dilation, strict=True)
    ]  # of each axis [windows, taps]
    rank = len(sizes)
    places = []
    for axis, grid in enumerate(grids):
        shape = np.ones((2, rank), int)
        shape[:, axis] = grid.shape
        places.append(grid.reshape(shape.ravel()))
    return index[tuple(places)].reshape(math.prod(outputs), math.prod(window)), tuple(outputs)


def _channels_last(layer, value):
    return value if layer.data_format == "channels_last" else _transposed(value, 0, -1)


def _channels_back(layer, value):
    return value if layer.data_format == "channels_last" else _transposed(value, -1, 0)


def _transposed(value, source, destination):
    index = np.arange(math.prod(value.shape)).reshape(value.shape)
    moved = np.moveaxis(index, source, destination)
    return value.then(_Moved(moved.ravel(), value.shape, moved.shape))


def _convolved(value, kernel, bias, strides, padding, dilation, groups):
    """kernel: `[*window, channels / groups, filters]`."""
    sizes, rank = value.shape[:-1], len(value.shape) - 1
    strides, dilation = (
        (number,) * rank if isinstance(number, int) else tuple(number)
        for number in (strides, dilation)
    )
    windows, output = _windows(sizes, kernel.shape[:rank], strides, padding, dilation)
    *_, channels, filters = kernel.shape
    kernel = kernel.reshape(-1, channels, groups, filters // groups)
    return value.then(_Convolution(windows, kernel, bias, value.shape, output))


def _convolution(layer, value):
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.kernel.shape[-1])
    value = _convolved(
        _channels_last(layer, value),
        _array(layer.kernel),
        bias,
        layer.strides,
        layer.padding,
        layer.dilation_rate,
        layer.groups,
    )
    return _activated(layer, _channels_back(layer, value))


def _depthwise(layer, value):
    value = _depthwise_only(layer, _channels_last(layer, value), layer.kernel, layer.use_bias)
    return _activated(layer, _channels_back(layer, value))


def _depthwise_only(layer, value, kernel, use_bias):
    kernel = _array(kernel)
    *window, channels, multiplier = kernel.shape
    filters = channels * multiplier
    bias = _array(layer.bias) if use_bias else np.zeros(filters)
    kernel = kernel.reshape(*window, 1, filters)
    arguments = (layer.strides, layer.padding, layer.dilation_rate, channels)
    return _convolved(value, kernel, bias, *arguments)


def _separable(layer, value):
    value = _channels_last(layer, value)
    value = _depthwise_only(layer, value, layer.depthwise_kernel, use_bias=False)
    kernel = _array(layer.pointwise_kernel)
    kernel = kernel.reshape(kernel.shape[-2:])
    bias = _array(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1])
    return _activated(layer, _channels_back(layer, value.then(_Dense(kernel, bias))))


def _pooled(layer, value, operation, window, strides, padding):
    sizes, channels = value.shape[:-1], value.shape[-1]
    windows, output = _windows(sizes, window, strides, padding, (1,) * len(sizes))
    places = windows[:, None, :] * channels + np.arange(channels)[:, None]
    places = np.where(windows[:, None, :] < 0, -1, places).reshape(-1, windows.shape[1])
    return value.then(operation(places, value.shape, (*output, channels)))


def _pooling(operation):
    def rule(layer, value):
        value = _channels_last(layer, value)
        value = _pooled(layer, value, operation, layer.pool_size, layer.strides, layer.padding)
        return _channels_back(layer, value)

    return rule


def _global_pooling(operation):
    def rule(layer, value):
        value = _channels_last(layer, value)
        sizes = value.shape[:-1]
        value = _pooled(layer, value, operation, sizes, sizes, "valid")
        value = _channels_back(layer, value)
        return value if layer.keepdims else _reshaped(value, (math.prod(value.shape),))

    return rule


def _reshaped(value, shape):
    return value.then(_Moved(np.arange(math.prod(shape)), value.shape, shape))


def _moving(layer, value):
    """A layer that only moves elements is asked where to: it is given their numbers."""
    if getattr(layer, "interpolation", "nearest") != "nearest":
        raise ValueError(
            f"Bounds through {type(layer).__name__} {layer.name!r} need "
            f'interpolation="nearest". Received: interpolation={layer.interpolation!r}'
        )
    size = math.prod(value.shape)
    if size > 2**24 - 1:
        raise ValueError(f"Bounds are for at most 2^24 - 1 elements a layer. Received: {size}")
    numbers = np.arange(1, size + 1, dtype="float32").reshape(1, *value.shape)
    moved = ops.convert_to_numpy(layer(numbers, training=False))[0].astype(int) - 1
    return value.then(_Moved(moved.ravel(), value.shape, moved.shape))


def _identity(layer, value):
    return value


def _batch_normalization(layer, value):
    (axis,) = layer.axis if isinstance(layer.axis, (list, tuple)) else (layer.axis,)
    shape = [1] * len(value.shape)
    axis = axis - 1 if axis > 0 else axis
    shape[axis] = value.shape[axis]
    scale = 1 / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * _array(layer.gamma)
    shift = -_array(layer.moving_mean) * scale
    beta = _array(layer.beta) if layer.center else np.zeros_like(shift)
    bias, magnitude = shift + beta, np.abs(shift) + np.abs(beta)
    parts = [part.reshape(shape) for part in (scale, bias, magnitude)]
    return value.then(_Scale(*parts, terms=12))


def _normalization(layer, value):
    if layer.mean is None:
        raise ValueError(f"Normalization {layer.name!r} has no mean yet: adapt or build it.")
    mean, variance = (
        np.broadcast_to(_array(w), (1, *value.shape))[0] for w in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return value.then(_Scale(deviation, mean, np.abs(mean), terms=8))
    shift = -mean / deviation
    return value.then(_Scale(1 / deviation, shift, np.abs(shift), terms=8))


def _rescaling(layer, value):
    scale, offset = (np.asarray(v, "float64") for v in (layer.scale, layer.offset))
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(*scale.shape, *[1] * (3 - scale.ndim))
    # Both are rounded to float32 first.
    return value.then(_Scale(scale, offset, np.abs(offset), terms=6))


def _combined(weights):
    def rule(layer, values):
        count = len(values)
        return _sum(layer, values, weights(count))

    return rule


def _sum(operation, values, weights):
    shapes = [value.shape for value in values]
    if len(set(shapes)) != 1:
        raise ValueError(
            f"Bounds through {type(operation).__name__} {operation.name!r} need inputs of one "
            f"shape. Received: shapes {shapes} of one sample"
        )
    return values[0].then(_Sum(weights), *values[1:])


def _concatenated(layer, values):
    axis = layer.axis % (len(values[0].shape) + 1)
    sizes = [value.shape[axis - 1] for value in values]
    return values[0].then(_Concatenated(axis, sizes), *values[1:])


def _maxout(layer, value):
    axis, channels = layer._channels((None, *value.shape))
    shape = value.shape
    index = np.arange(math.prod(shape)).reshape(
        *shape[: axis - 1], channels // layer.pieces, layer.pieces, *shape[axis:]
    )
    index = np.moveaxis(index, axis, -1)
    return value.then(_Maximum(index.reshape(-1, layer.pieces), shape, index.shape[:-1]))


def _linear_maxout(layer, value):
    return _read(layer.maxout, _read(layer.linear, value))


def _group_kan_dense(layer, value):
    return _read(layer.linear, _read(layer.rational, value))


def _softmax(layer, value):
    if not isinstance(layer.axis, int):
        raise ValueError(
            f"Bounds through Softmax {layer.name!r} need one axis. Received: axis={layer.axis!r}"
        )
    return value.then(_Softmax(layer.axis))


def _relu(layer, value):
    if layer.threshold != 0:
        raise ValueError(
            f"Bounds through ReLU {layer.name!r} need threshold=0. "
            f"Received: threshold={layer.threshold}"
        )
    largest = np.inf if layer.max_value is None else layer.max_value
    return value.then(_ElementWise(_Hinge(layer.negative_slope, largest)))


def _elu(layer, value):
    if layer.alpha != 1:
        raise ValueError(
            f"Bounds through ELU {layer.name!r} need alpha=1. Received: alpha={layer.alpha}"
        )
    return value.then(_ElementWise(_of_keras("elu")))


def _learned(layer, value):
    layer._assert_built("a proof about it")
    return value.then(_ElementWise(_Learned(layer)))


_RULES = {
    keras.layers.Activation: _activated,
    keras.layers.ReLU: _relu,
    keras.layers.LeakyReLU: lambda layer, value: value.then(
        _ElementWise(_Hinge(layer.negative_slope))
    ),
    keras.layers.PReLU: lambda layer, value: value.then(_ElementWise(_Hinge(_array(layer.alpha)))),
    RReLU: lambda layer, value: value.then(_ElementWise(_Hinge((layer.lower + layer.upper) / 2))),
    keras.layers.ELU: _elu,
    keras.layers.Softmax: _softmax,
    keras.layers.Dense: _dense,
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    GroupKANDense: _group_kan_dense,
    Maxout: _maxout,
    MaxoutDense: _linear_maxout,
    MaxoutConv2D: _linear_maxout,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Normalization: _normalization,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Add: _combined(lambda count: [1.0] * count),
    keras.layers.Subtract: _combined(lambda count: [1.0, -1.0]),
    keras.layers.Average: _combined(lambda count: [1 / count] * count),
    keras.layers.Concatenate: _concatenated,
    **{
        getattr(keras.layers, f"{kind}Pooling{rank}D"): _pooling(operation)
        for kind, operation in (("Max", _Maximum), ("Average", _Mean))
        for rank in (1, 2, 3)
    },
    **{
        getattr(keras.layers, f"Global{kind}Pooling{rank}D"): _global_pooling(operation)
        for kind, operation in (("Max", _Maximum), ("Average", _Mean))
        for rank in (1, 2, 3)
    },
    **{
        getattr(keras.layers, name): _moving
        for name in (
            *("Flatten", "Reshape", "Permute", "RepeatVector"),
            *("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"),
            *("Cropping1D", "Cropping2D", "Cropping3D"),
            *("UpSampling1D", "UpSampling2D", "UpSampling3D"),
        )
    },
    **{
        getattr(keras.layers, name): _identity
        for name in (
            *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
            *("GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"),
            *("Identity", "InputLayer"),
        )
    },
}  # fmt: skip


def _added(weights):
    def rule(operation, *terms):
        if all(isinstance(term, _Value) for term in terms):
            return _sum(operation, terms, weights)
        (value, sign), (constant, other_sign) = sorted(
            zip(terms, weights, strict=True), key=lambda term: not isinstance(term[0], _Value)
        )
        # Another array would make the sum one of another dtype.
        if not (isinstance(constant, (int, float)) or getattr(constant, "dtype", "") == "float32"):
            raise ValueError(
                f"Bounds through {type(operation).__name__} {operation.name!r} need outputs of "
                f"layers, numbers, or float32 arrays. Received: {constant!r}"
            )
        shift = other_sign * _array(np.asarray(constant, "float32"))
        sum_shape = np.broadcast_shapes((1, *value.shape), shift.shape)
        if sum_shape != (1, *value.shape):
            raise ValueError(
                f"Bounds through {type(operation).__name__} {operation.name!r} need a constant "
                f"that broadcasts with one sample. Received: shape {shift.shape} for a sample of "
                f"shape {value.shape}"
            )
        shift = np.broadcast_to(shift, sum_shape)[0]
        return value.then(_Scale(np.float64(sign), shift, np.abs(shift), terms=2))

    return rule


def _activation(name):
    return lambda operation, value: value.then(_ElementWise(_of_keras(name)))


_OPERATIONS = {
    numpy.Add: _added([1.0, 1.0]),
    numpy.Subtract: _added([1.0, -1.0]),
    nn.Relu: _activation("relu"),
    nn.Relu6: _activation("relu6"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Silu: _activation("silu"),
    nn.Softplus: _activation("softplus"),
    nn.Softsign: _activation("softsign"),
    numpy.Tanh: _activation("tanh"),
}
