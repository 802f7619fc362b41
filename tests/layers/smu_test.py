import math

import keras
import numpy as np
import pytest
from scipy import special

from keras_learnact.layers.smu import SMU
from tests.numeric import call, gradients


def of_paper(x, mu, alpha):
    return ((1 + alpha) * x + (1 - alpha) * x * special.erf(mu * (1 - alpha) * x)) / 2


@pytest.mark.parametrize("alpha", [0.25, 0, -0.5, 1, 3])
@pytest.mark.parametrize("mu", [2.5, 0, 0.1, -1])
def test_values_and_the_derivative_by_mu_are_those_of_the_papers_formula(alpha, mu):
    x = np.linspace(-5, 5, 101)
    layer = SMU(alpha, initial=mu)
    # float32, of numbers up to 15.
    np.testing.assert_allclose(call(layer, x), of_paper(x, mu, alpha), rtol=1e-6, atol=2e-6)
    column = np.full((1, 101), mu, "float32")
    _, (by_x, by_mu) = gradients(lambda x, mu: layer.function(x, mu=mu), np.float32(x), column)
    moved = [of_paper(x, mu + by, alpha) for by in (1e-5, -1e-5)]
    # The first few digits of float32, of squares of up to 100.
    np.testing.assert_allclose(by_mu[0], (moved[0] - moved[1]) / 2e-5, rtol=1e-4, atol=1e-4)
    moved = [of_paper(x + by, mu, alpha) for by in (1e-5, -1e-5)]
    np.testing.assert_allclose(by_x, (moved[0] - moved[1]) / 2e-5, rtol=1e-5, atol=1e-4)


def test_the_published_start_is_leaky_relu_and_its_mu_has_no_gradient():
    layer = SMU(initial=1e6)
    x = np.float32([-3, -0.5, -1e-3, 0, 1e-3, 2])
    np.testing.assert_array_equal(layer.curve(x), [np.maximum(x, x / 4)])
    _, (_, by_mu) = gradients(lambda x, mu: layer.function(x, mu=mu), x, np.float32([[1e6]]))
    assert by_mu == 0


def test_with_alpha_0_it_is_gelu():
    x = np.linspace(-3, 3, 61, dtype="float32")
    gelu = keras.ops.convert_to_numpy(keras.activations.gelu(x, approximate=False))
    np.testing.assert_allclose(SMU(0, 1 / math.sqrt(2)).curve(x), [gelu], rtol=1e-5, atol=1e-6)


def test_mu_is_learned():
    x = np.linspace(-3, 3, 256, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), SMU()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, of_paper(x, 0.7, 0.25), epochs=60, batch_size=64, verbose=0)
    assert model.layers[0].parameters()["mu"] == pytest.approx(0.7, abs=0.02)


def test_formula():
    assert SMU().formula() == "f(x) = 0.625 x + 0.375 x erf(1.875 x)"
    assert SMU(3, 1.0).formula() == "f(x) = 2 x - 1 x erf(-2 x)"


@pytest.mark.parametrize("alpha", [True, "0.25", float("nan"), 2e30, None])
def test_a_wrong_alpha_is_named(alpha):
    with pytest.raises(ValueError, match="alpha="):
        SMU(alpha)


def test_a_wrong_start_is_named():
    with pytest.raises(ValueError, match=r"initial=\(1, 2\)"):
        SMU(initial=(1, 2))
