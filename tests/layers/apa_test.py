import keras
import mpmath
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact import AGLU, APA
from keras_learnact.layers.apa import aglu, apa
from tests.numeric import call, differences, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))


def exact(x, lambda_, kappa):
    """p, and its derivatives by x, λ and κ, from the paper's equation."""
    with mpmath.workdps(200):  # log(1 + w) - w/(1 + w) is w²/2, and w may be 1e-60
        x, size, kappa = (mpmath.mpf(float(number)) for number in (x, abs(lambda_), kappa))
        e = mpmath.exp(-kappa * x)
        if size == 0:
            p = mpmath.exp(-e)
            by_u, by_lambda = p * e, p * e * e / 2
        else:
            w = size * e
            log = mpmath.log(1 + w)
            p = mpmath.exp(-log / size)
            by_u = p * e / (1 + w)
            by_lambda = p * (log - w / (1 + w)) / size**2
        if lambda_ < 0:
            by_lambda = -by_lambda
        return p, kappa * by_u, by_lambda, x * by_u


def exact_aglu(x, lambda_, kappa):
    p, *slopes = exact(x, lambda_, kappa)
    return float(x * p), float(p + x * slopes[0]), float(x * slopes[1]), float(x * slopes[2])


def random_arguments(count=300, dtype="float32"):
    """x, λ and κ; the λ of many magnitudes, of both signs, and some 0."""
    rng = np.random.default_rng(0)
    x = 4 * rng.normal(size=count)
    lambda_ = 10 ** rng.uniform(-30, 3, count) * rng.choice([-1, 1], count)
    lambda_[::3] = rng.normal(size=lambda_[::3].shape)
    lambda_[::20] = 0
    return [a.astype(dtype) for a in (x, lambda_, rng.normal(size=count))]


def at(layer, x, lambda_, kappa):
    """Value and derivatives of `layer.function` for every element's own parameters."""
    y, (by_x, by_lambda, by_kappa) = gradients(
        lambda x, lambda_, kappa: layer.function(x, lambda_, kappa), x, lambda_[None], kappa[None]
    )
    return y, by_x, by_lambda[0], by_kappa[0]


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
def test_values_and_derivatives_are_those_of_the_equation(dtype):
    x, lambda_, kappa = random_arguments(dtype=dtype)
    epsilon, tiny = (float(getattr(np.finfo(dtype), name)) for name in ("eps", "tiny"))
    # exp(-g) turns an error of g, some ten units, into a relative one; g is below -log(tiny).
    rtol = -10 * np.log(tiny) * epsilon
    for layer, truth in ((APA(), exact), (AGLU(), exact_aglu)):
        results = at(layer, x, lambda_, kappa)
        rows = [truth(*arguments) for arguments in zip(x, lambda_, kappa, strict=True)]
        wanted = np.array([[float(v) for v in row] for row in rows]).T
        for result, right in zip(results, wanted, strict=True):
            # What is below the normal numbers, times a derivative up to 1e6 there.
            np.testing.assert_allclose(result, right, rtol=rtol, atol=1e6 * tiny)


def test_one_and_one_are_the_sigmoid_and_silu():
    x = np.linspace(-30, 30, 601).astype("float32")
    for layer, function in ((APA(initial=(1, 1)), "sigmoid"), (AGLU(initial=(1, 1)), "silu")):
        known = keras.activations.get(function)(x.astype("float64"))
        # g <= 30 is rounded a few times.
        np.testing.assert_allclose(layer.curve(x)[0], np.asarray(known), rtol=1e-5)
    assert APA(initial=(1, 2)).curve([1.0]) == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-6)


def test_lambda_zero_is_the_gumbel_distribution_and_small_ones_go_there():
    x = np.linspace(-4, 20, 241)
    gumbel = np.exp(-np.exp(-1.5 * x))
    for lambda_ in (0, 1e-45, 1e-30, -1e-20, 1e-9):
        curve = APA(initial=(lambda_, 1.5)).curve(x)[0]
        # g, up to 87, is rounded a few times; λ = 1e-9 differs by λ e^(12)/2 of g.
        np.testing.assert_allclose(curve, gumbel, rtol=2e-4, atol=TINY)


def test_the_sign_of_lambda_says_nothing():
    x = np.linspace(-5, 5, 101).astype("float32")
    minus, plus = AGLU(initial=(-0.3, 1)), AGLU(initial=(0.3, 1))
    np.testing.assert_array_equal(minus.curve(x), plus.curve(x))
    assert minus.formula() == plus.formula()


@pytest.mark.parametrize("cls", [APA, AGLU])
def test_lambda_has_a_gradient_wherever_it_is(cls):
    x = np.float32([-1])
    for lambda_ in (-1e6, -1, -1e-6, -1e-30, 0.0, -0.0, 1e-30, 1e-6, 1, 1e6):
        slope = at(cls(), x, np.float32([lambda_]), np.float32([1]))[2]
        assert slope != 0 and np.isfinite(slope)
        # p grows with |λ|; at 0 the derivative is that of λ > 0.
        assert np.sign(slope) == (-1 if cls is AGLU else 1) * (-1 if lambda_ < 0 else 1)


@pytest.mark.parametrize("start", [-0.5, 0.0, 1e-6, 3.0])
def test_training_finds_lambda_from_either_side(start):
    x = np.tile(np.linspace(-4, 4, 64, dtype="float32"), 100)[:, np.newaxis]
    target = APA(initial=(0.5, 1)).curve(x)[0]
    model = keras.Sequential([keras.Input((1,)), APA(initial=(start, 0.8))])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, target, epochs=4, batch_size=64, shuffle=False, verbose=0)
    parameters = model.layers[0].parameters()
    # 400 steps of Adam at this rate end within a few hundredths.
    assert abs(parameters["lambda_"]) == pytest.approx(0.5, abs=0.05)
    assert parameters["kappa"] == pytest.approx(1, abs=0.05)


@pytest.mark.tensorflow  # float64
@pytest.mark.parametrize("function", [apa, aglu])
def test_derivatives_equal_differences_in_float64(function):
    x, lambda_, kappa = random_arguments(60, "float64")
    lambda_ = np.where(abs(lambda_) < 1e-3, 0.2, lambda_)  # a difference cannot be smaller
    _, slopes = gradients(function, x, lambda_, kappa)
    arguments = [x, lambda_, kappa]
    for i, slope in enumerate(slopes):

        def value(t, i=i):
            moved = [*arguments[:i], t, *arguments[i + 1 :]]
            return gradients(function, *moved)[0]

        # The step's square times a third derivative below 1e4 here.
        np.testing.assert_allclose(slope, differences(value, arguments[i], 1e-6), atol=1e-7)


def test_the_extremes_of_the_tails():
    # (1 + λ e^(-κx))^(-1/λ) with κx = -1e39, which overflows, and λ = 1e38: e^-10.
    assert APA(initial=(1e38, 10)).curve([-1e38]) == pytest.approx(np.exp(-10), rel=1e-5)
    layer = APA(initial=(1e38, 10))
    assert call(layer, np.float32([-1e38])) == pytest.approx(np.exp(-10), rel=1e-5)
    for layer in (APA(initial=(0.5, 1)), AGLU(initial=(0.5, 1))):
        low, high = layer.curve([-np.inf, np.inf])[0]
        assert low == 0 and high == (1 if type(layer) is APA else np.float32(MAX))
    # κ < 0 mirrors.
    np.testing.assert_array_equal(
        APA(initial=(0.5, -1)).curve([-2.0, 3.0]), APA(initial=(0.5, 1)).curve([2.0, -3.0])
    )


@pytest.mark.parametrize(("cls", "least", "most"), [(APA, 0, 1), (AGLU, 0.8, 1.2)])
def test_the_authors_start(cls, least, most):
    layer = cls(sharing="channel")
    layer.build((None, 4000))
    lambda_, kappa = layer.parameters().values()
    # 4000 numbers: a standard error of 0.005 of a mean, and both ends within a thousandth or so.
    assert 0 <= lambda_.min() < 0.01 and 0.99 < lambda_.max() <= 1
    assert least <= kappa.min() < least + 0.01 and most - 0.01 < kappa.max() <= most
    assert abs(np.corrcoef(lambda_[:, 0], kappa[:, 0])[0, 1]) < 0.1  # two draws, not one


def test_bounds_are_those_of_a_gate():
    layer = APA(initial=(0.5, 2))
    least, greatest = layer.range(-np.inf, np.inf)
    assert -1e-6 <= least[0] <= 0 and 1 <= greatest[0] <= 1.00001
    # p' = κ p (1 - p^λ)/λ is largest where p^λ = 1/(1 + λ) = 2/3: 2 · 4/9 · (1/3)/(1/2) = 16/27.
    np.testing.assert_allclose(layer.lipschitz(-9, 9), [16 / 27], rtol=1e-3)
    assert APA(initial=(0, 1)).range(0, 0)[1] == pytest.approx(np.exp(-1), rel=1e-4)
    # As SiLU: one minimum, -0.2785 at -1.2785.
    ((minimum,),) = AGLU(initial=(1, 1)).extrema(-9, 9)
    assert (minimum.x, minimum.value) == pytest.approx((-1.27846, -0.278465), rel=1e-4)


def test_regularizers_and_constraints_belong_to_their_parameters():
    layer = APA(
        initial=(3, -2),
        regularizer=(keras.regularizers.L2(0.1), keras.regularizers.L1(0.5)),
        constraint=("non_neg", None),
    )
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.9, 1.0])
    assert type(layer.lambda_.constraint) is keras.constraints.NonNeg
    again = APA.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_formula():
    assert APA(initial=(-0.5, 2)).formula() == "f(x) = (1 + 0.5 exp(-2 x))^(-1/0.5)"
    assert AGLU(initial=(0, -2)).formula() == "f(x) = x exp(-exp(2 x))"
    assert kla.Expression("(1 + 0.5 * exp(-2 * x)) ** (-1 / 0.5)").curve([0.3]) == pytest.approx(
        APA(initial=(0.5, 2)).curve([0.3]), rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": 0.5}, r"\(lambda_, kappa\).*initial=0\.5"),
        ({"initial": (1, 2, 3)}, r"initial=\(1, 2, 3\)"),
        ({"initial": (1, "nonsense")}, "nonsense"),
        ({"initial": (1, float("inf"))}, r"initial\[1\]=inf"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AGLU(**arguments)
