import keras
import numpy as np
import pytest

from keras_learnact import PAU, RPAU
from tests.numeric import call, gradients

X = np.linspace(-3, 3, 4000, dtype="float32").reshape(400, 10)


def test_inference_equals_pau_exactly():
    np.testing.assert_array_equal(call(RPAU(noise=0.1), X), call(PAU(), X))
    np.testing.assert_array_equal(call(RPAU(noise=0.1), X, training=False), call(PAU(), X))


def test_training_draws_anew_at_every_call_and_repeats_with_the_seed():
    first, second = RPAU(seed=7), RPAU(seed=7)
    a, b = call(first, X, training=True), call(first, X, training=True)
    assert (a != b).mean() > 0.99
    np.testing.assert_array_equal(call(second, X, training=True), a)
    assert (call(RPAU(seed=8), X, training=True) != a).mean() > 0.99


def test_noise_of_zero_changes_nothing():
    np.testing.assert_array_equal(call(RPAU(noise=0), X, training=True), call(PAU(), X))


def test_a_coefficient_is_uniform_within_its_noise():
    # f(x) = c with c = 2 (1 + 0.1 u): the output is the coefficient.
    layer = RPAU(noise=0.1, seed=1, degrees=(1, 0), initial=([2.0, 0.0], []))
    c = call(layer, np.ones((100, 100), "float32"), training=True)
    assert 1.8 < c.min() < 1.8001 and 2.1999 < c.max() < 2.2
    assert c.mean() == pytest.approx(2, abs=0.006)  # 5 standard errors of 0.2 / sqrt(3 · 10000)
    assert c.std() == pytest.approx(0.2 / 3**0.5, abs=0.003)


def test_the_gradient_takes_the_noise_as_a_constant():
    layer = RPAU(noise=0.5, seed=3, degrees=(1, 1), initial=([0.0, 2.0], [1.0]))
    x = np.array([[2.0]], "float32")

    def function(numerator, denominator):
        layer.seed_generator.state.assign([3, 0])
        return layer.training_function(x, numerator=numerator, denominator=denominator)

    a, b = np.array([[0.0], [2.0]], "float32"), np.array([[1.0]], "float32")
    y, (da, db) = gradients(function, a, b)
    # y = A x / Q with noisy A and Q = 1 + B x: dy/dA = x / Q and dy/dB = -A x² / Q², without the
    # factor that (1 + noise u) would bring; so da / y = 1 / A and db / y = -x / Q.
    q = 2 / da[1, 0]
    noisy_a = y[0, 0] / da[1, 0]
    assert 1 < noisy_a < 3 and noisy_a != 2 and 2 < q < 4 and q != 3
    np.testing.assert_allclose(db[0, 0], -y[0, 0] * 2 / q, rtol=1e-5)


def test_evaluation_after_training_sees_no_noise():
    model = keras.Sequential([keras.Input((10,)), RPAU(noise=0.1)])
    model.compile("sgd", "mse")
    model.fit(X, X, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_negative_noise_is_named():
    with pytest.raises(ValueError, match=r"noise=-0\.1"):
        RPAU(noise=-0.1)
