"""Learnable activation functions for Keras 3."""

import keras as _keras

from keras_learnact import callbacks as callbacks
from keras_learnact import export as export
from keras_learnact import history as history
from keras_learnact import kernels as kernels
from keras_learnact import layers as layers
from keras_learnact import observe as observe
from keras_learnact import plotting as plotting
from keras_learnact import report as report
from keras_learnact import verify as verify
from keras_learnact.conversion import convert as convert
from keras_learnact.conversion import fitted as fitted
from keras_learnact.conversion import freeze as freeze
from keras_learnact.conversion import simplify as simplify
from keras_learnact.export import export_saved_model as export_saved_model
from keras_learnact.fitting import fit as fit
from keras_learnact.layers import *  # noqa: F403 (its list of activations is the only one)
from keras_learnact.plotting import plot as plot
from keras_learnact.registry import activations as activations

__version__ = "0.1.0"

if _keras.backend.backend() == "tensorflow":
    kernels.load()  # a SavedModel may hold the kernels' ops, and finds them only if they are known
