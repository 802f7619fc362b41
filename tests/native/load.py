"""Loads libraries that Bazel built and calls an op: python load.py LIBRARY_TF LIBRARY_XLA"""

import ctypes
import importlib.util
import sys

import numpy as np


def main(tf_library, xla_library):
    xla = ctypes.CDLL(xla_library)
    xla.keras_learnact_xla_name.restype = ctypes.c_char_p
    names = [xla.keras_learnact_xla_name(i) for i in range(xla.keras_learnact_xla_kernels())]
    print("For XLA:", *(name.decode() for name in names))
    assert b"Rational" in names
    if importlib.util.find_spec("tensorflow") is None:
        print("TensorFlow is not installed: its library was built and not loaded.")
        return
    import tensorflow as tf

    ops = tf.load_op_library(tf_library)
    x = np.linspace(-2, 2, 12, dtype="float32").reshape(3, 4)
    # (1 + 2 x) / (1 + |3| |x|): version A, two coefficients in the numerator.
    y = ops.KerasLearnact_Rational(
        x=x, params=np.float32([[1, 2, 3]]), axis=0, settings=[2, ord("A")]
    )
    np.testing.assert_allclose(y, (1 + 2 * x) / (1 + 3 * np.abs(x)), rtol=1e-6)
    print("For TensorFlow: an op gives what its formula says.")


main(*sys.argv[1:])
