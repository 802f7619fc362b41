"""Derivatives on whichever backend runs, and by differences."""

import keras
import numpy as np
from keras import ops


def gradients(function, *arguments):
    """Value and gradients of `sum(function(*arguments))`, as NumPy arrays."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(a) for a in arguments]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        grads = tape.gradient(y, tensors, unconnected_gradients="zero")
        return y.numpy(), [g.numpy() for g in grads]
    if backend == "jax":
        import jax

        y = function(*map(jax.numpy.asarray, arguments))
        positions = tuple(range(len(arguments)))
        grads = jax.grad(lambda *a: function(*a).sum(), positions)(*arguments)
        return np.asarray(y), [np.asarray(g) for g in grads]
    import torch

    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    y = function(*tensors)
    grads = torch.autograd.grad(y.sum(), tensors, allow_unused=True)
    return y.detach().numpy(), [
        np.zeros(a.shape, a.dtype) if g is None else g.numpy()
        for a, g in zip(arguments, grads, strict=True)
    ]


def differences(function, x, step):
    """Central differences of an element-wise NumPy function."""
    return (function(x + step) - function(x - step)) / (2 * step)


def call(layer, x, **kwargs):
    return ops.convert_to_numpy(layer(x, **kwargs))
