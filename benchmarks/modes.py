"""How a function of tensors runs in every mode of Keras' backend.

TensorFlow has eager, graph (`tf.function`) and jit (XLA). JAX has jit, and donated: jit with the
results of the call before given back to it, so that it writes into memory that is already there.

Every function that is made here returns when its result is there.
"""

import functools
import inspect
from collections.abc import Callable

import keras

from keras_learnact import kernels
from training.config import UserError

MODES = {"tensorflow": ("eager", "graph", "jit"), "jax": ("jit", "donated")}


def modes(asked: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The modes of Keras' backend, or those of them that are asked for."""
    backend = keras.backend.backend()
    if backend not in MODES:
        raise UserError(
            f"The benchmarks run on {' and '.join(MODES)}. Received: KERAS_BACKEND={backend}"
        )
    unknown = set(asked) - set(MODES[backend])
    if unknown:
        raise UserError(f"--modes on {backend}: {MODES[backend]}. Received: {sorted(unknown)}")
    return asked or MODES[backend]


def elementwise(function: Callable, mode: str, widths: tuple[int, ...]) -> Callable:
    """A function of tensors in a mode.

    Args:
        function: in `keras.ops`; no layer in it.
        mode: one of `modes()`.
        widths: the last axis of each argument; all have rank 2.
    """
    if keras.backend.backend() == "tensorflow":
        return _on_tensorflow(function, mode, widths)
    return _on_jax(function, mode)


def forward(layer: keras.layers.Layer, mode: str, width: int) -> Callable:
    """x to y, as in training."""
    training = _training(layer)
    if keras.backend.backend() == "tensorflow":
        return _on_tensorflow(lambda x: layer(x, **training), mode, (width,))

    def function(trainable, non_trainable, x):
        return layer.stateless_call(trainable, non_trainable, x, **training)

    return _on_jax(function, mode, *_state(layer))


def forward_backward(layer: keras.layers.Layer, mode: str, width: int) -> Callable:
    """x, dy to y, dx and the gradients of all parameters, as in training."""
    training = _training(layer)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def both(x, dy):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, **training)
            return y, tape.gradient(y, [x, *layer.trainable_variables], output_gradients=dy)

        width_of_y = layer.compute_output_shape((None, width))[-1]
        return _on_tensorflow(both, mode, (width, width_of_y))
    import jax

    def both(trainable, non_trainable, x, dy):
        def function(trainable, x):
            return layer.stateless_call(trainable, non_trainable, x, **training)

        y, backward, non_trainable = jax.vjp(function, trainable, x, has_aux=True)
        return y, backward(dy), non_trainable

    return _on_jax(both, mode, *_state(layer))


def as_formula(function: Callable) -> Callable:
    """The function without compiled kernels, also when it is traced."""

    def run(*arguments):
        with kernels.disabled():
            return function(*arguments)

    return run


def _on_tensorflow(function, mode, widths):
    if mode == "eager":
        return function
    import tensorflow as tf

    # One trace for all sizes.
    signature = [tf.TensorSpec((None, width)) for width in widths]
    # `partial`: functions of the same lines of code are not one function that is traced too often.
    return tf.function(functools.partial(function), signature, jit_compile=mode == "jit")


def _on_jax(function, mode, *state):
    """The function in a mode, with its first arguments given."""
    import jax

    if mode == "jit":
        compiled = jax.jit(function)
        return lambda *arguments: jax.block_until_ready(compiled(*state, *arguments))
    compiled = jax.jit(
        lambda results, *arguments: function(*arguments), donate_argnums=0, keep_unused=True
    )
    kept = {}

    def run(*arguments):
        shape = arguments[0].shape
        if shape in kept:
            results = kept.pop(shape)
        else:
            shapes = jax.eval_shape(function, *state, *arguments)
            results = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), shapes)
        kept[shape] = jax.block_until_ready(compiled(results, *state, *arguments))
        return kept[shape]

    return run


def _training(layer):
    """How the call is told that it is part of training, where it makes a difference."""
    return {"training": True} if "training" in inspect.signature(layer.call).parameters else {}


def _state(layer):
    return tuple(
        [variable.value for variable in variables]
        for variables in (layer.trainable_variables, layer.non_trainable_variables)
    )
