"""Learnable activation functions for Keras 3."""

import keras as _keras

from keras_learnact import kernels as kernels
from keras_learnact import layers as layers
from keras_learnact.fitting import fit as fit
from keras_learnact.layers import *  # noqa: F403 (its list of activations is the only one)

__version__ = "0.1.0"

if _keras.backend.backend() == "tensorflow":
    kernels.load()  # a SavedModel may hold the kernels' ops, and finds them only if they are known
