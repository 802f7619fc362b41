import keras
import numpy as np
import pytest

from keras_learnact import PAU, PReLU
from training import optimizers
from training.config import ImageConfig, UserError


def rates(steps, steps_per_epoch=10, **config):
    """The learning rates of the given steps, the first step being 0."""
    rate = optimizers.schedule(ImageConfig(learning_rate=0.1, **config), steps_per_epoch)
    return [float(rate(step)) for step in steps]


def test_a_constant_rate_is_a_number():
    assert optimizers.schedule(ImageConfig(learning_rate=0.1), 10) == 0.1


def test_an_exponential_rate_decays_after_each_epoch():
    found = rates([0, 9, 10, 20], schedule="exponential", decay=0.5)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.05, 0.025], rtol=1e-6)


def test_a_rate_steps_down_with_the_first_step_of_an_epoch():
    found = rates([29, 30, 59, 60], schedule="steps", decay=0.1, decay_epochs=(3, 6))
    np.testing.assert_allclose(found, [0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_a_cosine_rate_ends_at_0_after_the_last_epoch():
    found = rates([0, 20, 40], schedule="cosine", epochs=4)
    np.testing.assert_allclose(found, [0.1, 0.05, 0], atol=1e-8)


def trained_once(config, loss_scale=0.0):
    """A dense kernel of 1, a PReLU slope of 0.25 and PAU's numerator after one step."""
    inputs = keras.Input((1,))
    x = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="dense")(inputs)
    x = PReLU(sharing="layer", name="prelu")(x)
    model = keras.Model(inputs, PAU(name="pau")(x))
    numerator = model.get_layer("pau").parameters()["numerator"]
    model.compile(optimizers.build(config, 10), lambda y, out: loss_scale * keras.ops.sum(out))
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    return (
        float(np.asarray(model.get_layer("dense").kernel).item()),
        float(np.asarray(model.get_layer("prelu").alpha).item()),
        model.get_layer("pau").parameters()["numerator"] - numerator,
    )


def test_weight_decay_is_that_of_the_papers_and_spares_activation_parameters():
    config = ImageConfig(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    kernel, slope, change = trained_once(config)
    # With momentum 0.9 a decay that is added to the gradient acts 1 / (1 - 0.9) = 10 times.
    assert kernel == pytest.approx(1 - 0.1 * 0.01 * 10)
    assert slope == 0.25
    assert np.all(change == 0)


def test_activation_parameters_have_their_own_rate():
    config = ImageConfig(optimizer="sgd", learning_rate=0.0, activation_learning_rate=0.01)
    kernel, _, change = trained_once(config, loss_scale=1.0)
    assert kernel == 1
    # The gradient of a_0 is 1/Q(1) with Q(1) = 1 + Σ|b_k|, Table 6.
    assert change[0, 0] == pytest.approx(-0.01 / 7.75425561, rel=1e-4)


def test_clipping_bounds_all_gradients_together():
    config = ImageConfig(optimizer="sgd", learning_rate=1.0, clip_norm=0.5)
    kernel, slope, change = trained_once(config, loss_scale=1000.0)
    assert np.sqrt((kernel - 1) ** 2 + (slope - 0.25) ** 2 + np.sum(change**2)) <= 0.5 * 1.0001


@pytest.mark.parametrize("wrong", [{"optimizer": "lion"}, {"schedule": "linear"}])
def test_an_unknown_name_is_an_error(wrong):
    with pytest.raises(UserError, match="Received: '(lion|linear)'"):
        optimizers.build(ImageConfig(**wrong), 10)
