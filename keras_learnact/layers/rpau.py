"""RPAU: the randomised Padé activation unit."""

import keras
from keras import ops

from keras_learnact import kernels
from keras_learnact.layers.base import PACKAGE
from keras_learnact.layers.pau import PAU, rational
from keras_learnact.philox import symmetric_uniform


@keras.saving.register_keras_serializable(PACKAGE)
class RPAU(PAU):
    """Randomised PAU: in training every element sees its own, slightly wrong, coefficients.

    Formula: `PAU`'s, with each coefficient c_i replaced for element j by

        c_i (1 + noise · u_ij),   u_ij uniform in (-1, 1), drawn anew at every call

    when called with `training=True`; exactly `PAU` otherwise. The gradient takes the noise as an
    added constant: df/dc_i is PAU's formula at the noisy coefficients.

    The draws come from Philox4x32-10, keyed by a `SeedGenerator`, and the element's index: the same
    seed gives the same draws on every backend and device. They have 12 bits.

    Args:
        noise: relative half-width of the noise, >= 0. The paper uses 0.01 and 0.1.
        seed: optional integer; without it, a random one (see `keras.utils.set_random_seed`).
        **kwargs: `PAU`'s arguments.

    Raises:
        ValueError: if `noise` is not a finite number >= 0, or as `PAU`.

    Reference: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Eq. 3.
    """

    def __init__(self, noise=0.01, seed=None, **kwargs):
        if not (isinstance(noise, (int, float)) and 0 <= noise < float("inf")):
            raise ValueError(
                f"RPAU: `noise` must be a finite number >= 0, the relative half-width of the "
                f"coefficients' noise. Received: noise={noise!r}"
            )
        super().__init__(**kwargs)
        self.noise = noise
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def training_function(self, x, numerator, denominator):
        key = self.seed_generator.next()
        return randomized_rational(x, numerator, denominator, self.version, self.noise, key)

    def kernel(self, training):
        if not training or self.noise == 0:
            return super().kernel(training)
        settings = (self.degrees[0] + 1, ord(self.version), kernels.bits(self.noise))
        return kernels.Call(KERNEL, settings, self.seed_generator.next)

    def get_config(self):
        return {**super().get_config(), "noise": self.noise, "seed": self.seed}


def randomized_rational(x, numerator, denominator, version, noise, key):
    """`rational` with coefficients that every element draws anew, as `RPAU` defines it.

    Args:
        x, numerator, denominator, version: see `rational`; the coefficients are tensors.
        noise: relative half-width of the noise.
        key: integer tensor of two words.
    """
    a = [numerator[j] for j in range(numerator.shape[0])]
    b = [denominator[k] for k in range(denominator.shape[0])]
    draws = symmetric_uniform(ops.shape(x), len(a) + len(b), key, x.dtype)
    noisy = [c + ops.stop_gradient(noise * c) * u for c, u in zip(a + b, draws, strict=True)]
    return rational(x, noisy[: len(a)], noisy[len(a) :], version)


def _formula(x, p, settings, key):
    a, version, noise = settings
    return randomized_rational(x, p[:a], p[a:], chr(version), kernels.real(noise), key)


KERNEL = kernels.kernel("RandomizedRational", _formula)
