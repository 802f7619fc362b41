"""A short program over every way to call a kernel, for an environment that has only the wheel.

KERAS_BACKEND=tensorflow python portable.py    (`make test-portable`)
"""

import sys
import warnings

import keras
import numpy as np

import keras_learnact as kla
from keras_learnact import kernels

warnings.simplefilter("error", UserWarning)  # a library that cannot be used says so

X = np.linspace(-3, 3, 64 * 8, dtype="float32").reshape(64, 8)


def activations():
    return [kla.PAU(), kla.RPAU(seed=1), kla.APL(), kla.SReLU(), kla.Maxout(2), kla.Mixture()]


def trained(jit_compile):
    """All weights of a network with every activation after some steps."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,))]
    for activation in activations():
        layers += [keras.layers.Dense(8), activation]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit_compile)
    model.fit(X, np.sin(X[:, :1]), epochs=3, shuffle=False, verbose=0)
    return [*(np.array(w) for w in model.get_weights()), model.predict(X, verbose=0)]


def same(got, expected, what):
    for a, b in zip(got, expected, strict=True):
        # Six steps from the same start; the sums of the gradients are taken in another order.
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4, err_msg=what)
    print(f"  {what}: as the formulas", flush=True)


def main():
    kernels.status()
    if kernels.load()[1]:
        sys.exit("There are no kernels.")
    eager = [np.array(layer(X)) for layer in activations()]
    with kernels.disabled():
        formulas = [np.array(layer(X)) for layer in activations()]
        expected = trained(False)
    same(eager, formulas, "eager")
    assert all(layer.path == "kernel" for layer in activations() if hasattr(layer, "path"))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        traced = []  # a choice made while a graph is traced

        @tf.function
        def function(x):
            traced.append(layer.path)
            return layer(x)

        layer = activations()[0]
        same([function(X).numpy()], formulas[:1], "graph")
        same([tf.function(function, jit_compile=True)(X).numpy()], formulas[:1], "graph in XLA")
        assert set(traced) == {"kernel"}, traced
    else:
        import jax

        layer = activations()[0]
        layer.build((None, 8))
        values = [v.value for v in layer.trainable_variables]
        function = jax.jit(lambda values, x: layer.stateless_call(values, [], x)[0])
        same([function(values, X)], formulas[:1], "jit")
    for jit_compile in (False, True):
        same(trained(jit_compile), expected, f"fit(jit_compile={jit_compile})")


main()
