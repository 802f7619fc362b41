import keras
import numpy as np
import pytest
from keras import ops

from keras_learnact.layers.base import LearnableActivation, Parameter
from keras_learnact.optimizers import ActivationOptimizer, is_activation_parameter

SGD = keras.optimizers.SGD


@keras.saving.register_keras_serializable("optimizers_test")
class Slope(LearnableActivation):
    """`f(x) = slope[0] * x`, slope 2: an activation whose gradients a reader can check."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def parameter_list(self):
        return [Parameter("slope", 1, [2.0])]

    def function(self, x, slope):
        return slope[0] * x


@keras.saving.register_keras_serializable("optimizers_test")
def is_activation_parameter_or_alpha(variable):
    return is_activation_parameter(variable) or variable.name == "alpha"


def product_model():
    """`y = slope * (kernel * x)`, slope 2, kernel 3: dy/dslope = 3, dy/dkernel = 2 at x = 1."""
    return keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(
                1, use_bias=False, kernel_initializer=keras.initializers.Constant(3.0)
            ),
            Slope(),
        ]
    )


def output(y_true, y_pred):
    """The model's output as its loss: dloss/dw = dy/dw. The target is ignored."""
    return ops.mean(y_pred, axis=-1)


ONE = np.ones((1, 1), "float32")


def fit(model, optimizer, epochs=1, callbacks=(), jit_compile="auto"):
    if optimizer is not None:
        model.compile(optimizer, output, jit_compile=jit_compile)
    model.fit(ONE, ONE, epochs=epochs, callbacks=list(callbacks), verbose=0)
    return [weight.item() for weight in model.get_weights()]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_activation_rate_moves_slopes_and_the_main_rate_kernels(jit_compile):
    optimizer = ActivationOptimizer(SGD(0.1), activation_learning_rate=0.01)
    kernel, slope = fit(product_model(), optimizer, jit_compile=jit_compile)
    # One float32 rounding in the step, one in the sum.
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)


def test_weight_decay_shrinks_kernels_only():
    optimizer = ActivationOptimizer(SGD(0.1, weight_decay=0.5), activation_learning_rate=0.01)
    kernel, slope = fit(product_model(), optimizer)
    # Keras shrinks by learning_rate * weight_decay = 5 % before the step.
    assert kernel == pytest.approx(3 * 0.95 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)


def test_adamw_gets_a_copy_without_decay():
    optimizer = ActivationOptimizer(keras.optimizers.AdamW(0.1, weight_decay=0.5))
    kernel, slope = fit(product_model(), optimizer)
    # Adam's first step has the size of the learning rate, up to 1 - 0.999 in float32.
    assert kernel == pytest.approx(3 * 0.95 - 0.1, rel=1e-5)
    assert slope == pytest.approx(2 - 0.1, rel=1e-5)


def test_without_a_rate_of_its_own_an_activation_has_the_main_one():
    kernel, slope = fit(product_model(), ActivationOptimizer(SGD(0.1)))
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.1 * 3, rel=1e-6)


def test_the_copy_has_the_momentum_of_the_main_optimizer():
    optimizer = ActivationOptimizer(SGD(0.0, momentum=0.5), activation_learning_rate=0.01)
    _, slope = fit(product_model(), optimizer, epochs=2)
    # The kernel stands still, so both gradients are 3: steps 0.03 and 0.03 + 0.5 * 0.03.
    assert slope == pytest.approx(2 - 0.03 - 0.045, rel=1e-6)


def test_the_activations_may_have_another_kind_of_optimizer():
    optimizer = ActivationOptimizer("sgd", activation_optimizer=keras.optimizers.Adam(0.25))
    kernel, slope = fit(product_model(), optimizer)
    assert kernel == pytest.approx(3 - 0.01 * 2, rel=1e-6)
    # Adam's first step has the size of the learning rate, up to 1 - 0.999 in float32.
    assert slope == pytest.approx(2 - 0.25, rel=1e-5)


def test_the_global_norm_is_that_of_all_gradients_together():
    optimizer = ActivationOptimizer(SGD(1.0, global_clipnorm=0.5), activation_learning_rate=0.1)
    kernel, slope = fit(product_model(), optimizer)
    # The gradient (2, 3) has the norm sqrt(13); both parts shrink by 0.5 / sqrt(13).
    shrink = 0.5 / 13**0.5
    assert kernel == pytest.approx(3 - 1.0 * 2 * shrink, rel=1e-6)
    assert slope == pytest.approx(2 - 0.1 * 3 * shrink, rel=1e-6)


def test_a_norm_below_the_bound_is_left_alone():
    optimizer = ActivationOptimizer(SGD(0.1, global_clipnorm=4.0), activation_learning_rate=0.01)
    kernel, slope = fit(product_model(), optimizer)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)


def test_the_bound_of_the_activation_optimizer_is_for_its_own_gradients():
    optimizer = ActivationOptimizer(SGD(0.1), activation_optimizer=SGD(0.1, global_clipnorm=1.0))
    kernel, slope = fit(product_model(), optimizer)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.1 * 1, rel=1e-6)


def test_a_fixed_loss_scale_changes_nothing_also_when_clipping():
    def after(**kwargs):
        sgd = SGD(1.0, global_clipnorm=0.5, **kwargs)
        return fit(product_model(), ActivationOptimizer(sgd, activation_learning_rate=0.1))

    # A power of two scales float32 numbers exactly.
    assert after(loss_scale_factor=1024.0) == pytest.approx(after(), rel=1e-6)


def test_the_norm_counts_sparse_gradients_of_embeddings():
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="int32"),
            keras.layers.Embedding(4, 1, embeddings_initializer=keras.initializers.Constant(3.0)),
            keras.layers.Flatten(),
            Slope(),
        ]
    )
    model.compile(ActivationOptimizer(SGD(1.0, global_clipnorm=0.5)), output)
    model.fit(np.array([[2]]), ONE, verbose=0)
    embeddings, slope = model.get_weights()
    shrink = 0.5 / 13**0.5
    np.testing.assert_allclose(embeddings.ravel(), [3, 3, 3 - 2 * shrink, 3], rtol=1e-6)
    assert slope.item() == pytest.approx(2 - 3 * shrink, rel=1e-6)


def test_a_dynamic_loss_scale_around_it_skips_steps_that_overflow():
    optimizer = keras.optimizers.LossScaleOptimizer(
        ActivationOptimizer(SGD(0.1, global_clipnorm=4.0), activation_learning_rate=0.01),
        initial_scale=2.0**127,
    )
    model = product_model()
    # The gradient 3 * 2**127 overflows float32, 3 * 2**126 does not.
    assert fit(model, optimizer) == [3, 2]
    kernel, slope = fit(model, None)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)
    assert int(optimizer.iterations) == 1


def test_a_dynamic_loss_scale_replaces_a_fixed_one():
    sgd = SGD(0.1, loss_scale_factor=1024.0)
    optimizer = keras.optimizers.LossScaleOptimizer(
        ActivationOptimizer(sgd, activation_learning_rate=0.01)
    )
    kernel, slope = fit(product_model(), optimizer)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)


def test_gradients_accumulate_in_both_optimizers():
    optimizer = ActivationOptimizer(
        SGD(0.1, gradient_accumulation_steps=2), activation_learning_rate=0.01
    )
    model = product_model()
    assert fit(model, optimizer) == [3, 2]
    kernel, slope = fit(model, None)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)
    assert int(optimizer.iterations) == 1


def test_averages_replace_all_weights_after_the_last_epoch():
    optimizer = ActivationOptimizer(
        SGD(0.1, use_ema=True, ema_momentum=0.0), activation_learning_rate=0.01
    )
    kernel, slope = fit(product_model(), optimizer)
    # An average without memory is the last value.
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3, rel=1e-6)
    optimizer = ActivationOptimizer(
        SGD(0.1, use_ema=True, ema_momentum=1.0), activation_optimizer=SGD(0.01)
    )
    kernel, slope = fit(product_model(), optimizer, epochs=2)
    # Keras' average starts as the value after the first step, momentum 1 then keeps it. The
    # activation optimizer averages nothing: the second slope gradient is the kernel 2.8.
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3 - 0.01 * 2.8, rel=1e-6)


def test_a_schedule_of_the_activations_counts_their_own_steps():
    halving = keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5, staircase=True)
    optimizer = ActivationOptimizer(SGD(0.0), activation_learning_rate=halving)
    _, slope = fit(product_model(), optimizer, epochs=3)
    assert slope == pytest.approx(2 - 3 * (0.01 + 0.005 + 0.0025), rel=1e-6)
    assert int(optimizer.iterations) == 3


def test_a_schedule_of_the_main_optimizer_leaves_a_constant_activation_rate_alone():
    stop = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.0])
    optimizer = ActivationOptimizer(SGD(stop), activation_learning_rate=0.01)
    kernel, slope = fit(product_model(), optimizer, epochs=2)
    assert kernel == pytest.approx(3 - 0.1 * 2, rel=1e-6)
    assert slope == pytest.approx(2 - 0.01 * 3 - 0.01 * 2.8, rel=1e-6)


def test_learning_rate_callbacks_act_on_the_main_rate():
    optimizer = ActivationOptimizer(SGD(0.1), activation_learning_rate=0.01)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    fit(product_model(), optimizer, epochs=2, callbacks=[scheduler])
    assert float(optimizer.learning_rate) == pytest.approx(0.025)
    assert float(optimizer.activation_optimizer.learning_rate) == pytest.approx(0.01)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, mode="max")
    fit(product_model(), ActivationOptimizer(SGD(0.1)), epochs=3, callbacks=[plateau])
    optimizer.learning_rate = 0.5
    assert float(optimizer.optimizer.learning_rate) == 0.5


def test_constraints_hold_after_a_step():
    class NonNegativeSlope(Slope):
        def parameter_list(self):
            return [Parameter("slope", 1, [2.0], constraint=keras.constraints.NonNeg())]

    model = keras.Sequential([keras.Input((1,)), NonNegativeSlope()])
    # The step alone would lead to 2 - 100.
    assert fit(model, ActivationOptimizer(SGD(0.1), activation_learning_rate=100.0)) == [0]


@pytest.mark.parametrize("frozen", ["activation", "kernel"])
def test_one_optimizer_may_have_nothing_to_train(frozen):
    model = product_model()
    model.layers[frozen == "activation"].trainable = False
    optimizer = ActivationOptimizer(SGD(0.1), activation_learning_rate=0.01)
    fit(model, optimizer)
    dense, activation = (layer.get_weights()[0].item() for layer in model.layers)
    assert dense == pytest.approx(3 if frozen == "kernel" else 3 - 0.1 * 2, rel=1e-6)
    assert activation == pytest.approx(2 if frozen == "activation" else 2 - 0.01 * 3, rel=1e-6)
    assert int(optimizer.iterations) == 1


def test_a_model_without_learnable_activations_trains_as_with_its_own_optimizer():
    model = keras.Sequential(product_model().layers[:1])
    kernel = fit(model, ActivationOptimizer(SGD(0.1), activation_learning_rate=5.0))
    assert kernel == pytest.approx([3 - 0.1], rel=1e-6)


def test_keras_own_slopes_can_be_counted_in():
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.PReLU(keras.initializers.Constant(2.0)), Slope()]
    )
    optimizer = ActivationOptimizer(
        SGD(100.0), activation_learning_rate=0.01, select=is_activation_parameter_or_alpha
    )
    model.compile(optimizer, output)
    model.fit(-ONE, ONE, verbose=0)
    # y = slope * alpha * x at x = -1: dy/dalpha = -2, dy/dslope = -2.
    alpha, slope = (weight.item() for weight in model.get_weights())
    assert [alpha, slope] == pytest.approx([2.02, 2.02], rel=1e-6)


def test_a_config_gives_an_equal_optimizer():
    optimizer = ActivationOptimizer(
        SGD(0.5, momentum=0.9, weight_decay=0.25),
        activation_optimizer=keras.optimizers.Adam(0.125),
        select=is_activation_parameter_or_alpha,
        name="both",
    )
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert keras.optimizers.serialize(again) == config
    assert again.select is is_activation_parameter_or_alpha
    assert again.optimizer.weight_decay == 0.25
    assert isinstance(again.activation_optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize("loss_scale", [False, True])
def test_a_saved_model_continues_exactly(tmp_path, loss_scale):
    optimizer = ActivationOptimizer(
        SGD(0.01, momentum=0.9, weight_decay=0.1), activation_optimizer=keras.optimizers.Adam(0.01)
    )
    if loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = product_model()
    fit(model, optimizer, epochs=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"output": output})
    assert int(loaded.optimizer.iterations) == 3
    assert fit(loaded, None, epochs=3) == fit(model, None, epochs=3)


def test_weights_files_carry_the_state(tmp_path):
    def trained():
        sgd = SGD(0.01, momentum=0.9)
        model = product_model()
        fit(model, ActivationOptimizer(sgd, activation_learning_rate=0.001), epochs=2)
        return model

    model, other = trained(), trained()
    fit(other, None, epochs=5)
    model.save_weights(tmp_path / "state.weights.h5")
    other.load_weights(tmp_path / "state.weights.h5")
    assert fit(other, None) == fit(model, None)


def test_gradients_can_be_applied_by_hand():
    model = product_model()
    optimizer = ActivationOptimizer(SGD(0.1), activation_learning_rate=0.01)
    gradients = [ops.convert_to_tensor([[1.0]]), ops.convert_to_tensor([[10.0]])]
    with pytest.raises(ValueError, match="does not know its variables yet"):
        optimizer.apply(gradients)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    optimizer.apply(gradients)
    kernel, slope = (weight.item() for weight in model.get_weights())
    assert [kernel, slope] == pytest.approx([3 - 0.2, 2 - 0.2], rel=1e-6)


def test_a_missing_gradient_warns_and_moves_nothing():
    model = product_model()
    optimizer = ActivationOptimizer(SGD(0.1), activation_learning_rate=0.01)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ops.convert_to_tensor([[1.0]]), None], model.trainable_variables)
    kernel, slope = (weight.item() for weight in model.get_weights())
    assert kernel == pytest.approx(2.9, rel=1e-6)
    assert slope == 2


def test_wrong_arguments_say_the_way_out():
    shared = SGD(0.1)
    with pytest.raises(ValueError, match="not both"):
        ActivationOptimizer("sgd", activation_learning_rate=0.1, activation_optimizer="sgd")
    with pytest.raises(ValueError, match="needs two optimizers"):
        ActivationOptimizer(shared, activation_optimizer=shared)
    with pytest.raises(ValueError, match="Put it around"):
        ActivationOptimizer(keras.optimizers.LossScaleOptimizer(SGD(0.1)))
    with pytest.raises(ValueError, match="same `loss_scale_factor`"):
        ActivationOptimizer(SGD(0.1, loss_scale_factor=2.0), activation_optimizer=SGD(0.1))
    with pytest.raises(ValueError, match="Use `clipnorm`"):
        ActivationOptimizer(SGD(0.1, global_clipnorm=1.0, gradient_accumulation_steps=2))
