"""What a layer says of its function, as an expression, as text and as C, is what it computes."""

import ctypes
import os
import re
import shutil
import subprocess

import keras
import mpmath
import numpy as np
import pytest
import sympy
from keras import ops
from scipy import special

import keras_learnact as kla
from keras_learnact import expressions
from keras_learnact.layers import APL, DEU, PAU, SLAF, Mixture, SReLU
from tests.layers.contract_test import ACTIVATIONS, built, every_activation

X = expressions.symbol("x")
POINTS = [0, 1e-30, 1e-3, 0.1, 0.337, 0.5, 1, 1.5, 2.5, 5, 30, 1e3, 1e6, 1e20, 1e30]
POINTS = np.array([-x for x in POINTS[:0:-1]] + POINTS)
LARGEST = {"float32": np.finfo("float32").max, "float64": np.finfo("float64").max}


def with_settings(cls, *args, **settings):
    return lambda **kwargs: cls(*args, **settings, **kwargs)


# Without two whose constants TensorFlow has in float32, and two whose squares overflow there.
MANY = tuple(sorted(set(expressions.KERAS) - {"leaky_relu", "gelu", "sparse_plus", "squareplus"}))
MORE = {
    "PAU-B": with_settings(PAU, denominator="B"),
    "PAU-C": with_settings(PAU, denominator="C"),
    "PAU-N": with_settings(PAU, (3, 6), "N"),
    "SLAF-12": with_settings(SLAF, 12),
    "Mixture-of-many": with_settings(Mixture, MANY),
    "DEU-guarded-early": with_settings(DEU, limit=None, max_exponent=2.0),
}
every_function = pytest.mark.parametrize(
    "cls",
    [*ACTIVATIONS, *MORE.values()],
    ids=[*(cls.__name__ for cls in ACTIVATIONS), *MORE],
)
CASES = [("layer", "float32"), (2, "float64")]


def float64_or_skip(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless its 64-bit mode is on")


def evaluated(expression, x):
    """The expression at each x with 40 digits."""
    function = sympy.lambdify(X, expression, "mpmath")
    with mpmath.workdps(40):
        return [function(mpmath.mpf(float(value))) for value in x]


def rounded(values, dtype):
    largest = mpmath.mpf(float(LARGEST[dtype]))
    return np.array(
        [float(v if abs(v) <= largest else mpmath.sign(v) * mpmath.inf) for v in values]
    )


def tolerance(layer, x, y):
    """How far the layer may be off: it is right for numbers that are a few roundings off."""
    eps = np.finfo(layer._math_dtype).eps
    allowed = 64 * eps * (1 + abs(y))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        near = {
            name: value * (1 + 8 * eps * rng.choice([-1, 1], value.shape))
            for name, value in layer.parameters().items()
        }
        with np.errstate(invalid="ignore", over="ignore"):  # ∞ - ∞; the largest x
            moved = abs(layer.curve(x * (1 + 8 * eps * rng.choice([-1, 1], x.shape)), near) - y)
        allowed = np.fmax(allowed, 4 * moved)
    return allowed


def assert_close(actual, expected, allowed):
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    with np.errstate(invalid="ignore"):
        close = (actual == expected) | (abs(actual - expected) <= allowed)
    assert close.all(), (actual[~close], expected[~close], np.asarray(allowed)[~close])


@every_function
@pytest.mark.parametrize("sharing, dtype", CASES)
def test_the_expression_is_the_curve(cls, dtype, sharing):
    float64_or_skip(dtype)
    layer = built(cls, sharing, dtype=dtype)
    x = POINTS.astype(dtype)
    y = layer.curve(x)
    allowed = tolerance(layer, x, y)
    for group in {0, layer.groups - 1}:
        expression = layer.sympy(group)
        assert not expression.atoms(sympy.Float) and expression.free_symbols <= {X}
        assert_close(y[group], rounded(evaluated(expression, x), dtype), allowed[group])


@every_function
def test_an_expression_is_simple(cls):
    simple = (sympy.Add, sympy.Mul, sympy.Pow, sympy.Number, sympy.Symbol, sympy.Abs, sympy.Max)
    simple += (sympy.Min, sympy.Piecewise, sympy.exp, sympy.sin, sympy.cos, sympy.tanh)
    simple += (sympy.erf, sympy.log, sympy.sinh)
    for part in sympy.preorder_traversal(built(cls).sympy()):
        if isinstance(part, sympy.functions.elementary.piecewise.ExprCondPair):
            for relation in part.cond.atoms(sympy.core.relational.Relational):
                assert sympy.degree(relation.lhs - relation.rhs, X) == 1
        elif isinstance(part, sympy.Expr):
            assert isinstance(part, simple), part
        if isinstance(part, sympy.Pow):
            assert part.exp.is_Integer or part.exp == sympy.S.Half


@pytest.mark.parametrize("name", expressions.KERAS)
def test_a_function_of_keras_is_its_expression(name):
    x = np.linspace(-6, 6, 49, dtype="float32")
    y = ops.convert_to_numpy(keras.activations.get(name)(ops.convert_to_tensor(x)))
    expected = rounded(evaluated(expressions.KERAS[name](sympy, X), x), "float32")
    # float32; ±0.5, ±1 and ±3, where some jump or turn, are among the points.
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-6)


def test_symbols_give_the_general_formula():
    a, b = sympy.symbols("a:3", real=True), sympy.symbols("b1:3", real=True)
    general = PAU((2, 2), initial=([0, 1, 0], [0, 0])).expression(X, numerator=a, denominator=b)
    by_hand = (a[0] + a[1] * X + a[2] * X**2) / (1 + abs(b[0]) * abs(X) + abs(b[1]) * X**2)
    assert sympy.simplify(general - by_hand) == 0
    p, q, r, s = sympy.symbols("p q r s", real=True)
    apl = APL(2, sharing="layer").expression(X, slopes=[p, q], hinges=[r, s])
    assert apl == sympy.Max(0, X) + p * sympy.Max(0, r - X) + q * sympy.Max(0, s - X)
    with pytest.raises(NotImplementedError, match="needs numbers.*Received: p, q, r, s, p"):
        DEU(sharing="layer").expression(X, a=[p], b=[q], c=[r], c1=[s], c2=[p])


def test_expressions_by_hand():
    half = sympy.S.Half
    assert PAU((1, 1), initial=([0.5, -1.25], [2.0])).sympy() == (half - X * 5 / 4) / (
        1 + 2 * abs(X)
    )
    srelu = SReLU(initial=(-1, 0.5, 2, 0), sharing="layer").sympy()
    assert srelu == sympy.Piecewise((2, X >= 2), (X / 2 - half, X <= -1), (X, True))
    assert DEU(initial=(0, 1, 0, 0, 0), sharing="layer", limit=None).sympy() == sympy.Piecewise(
        (X, X > 0), (0, True)
    )
    mixture = Mixture(("linear", lambda x: 0.5 * x**2), initial=(1, 2)).sympy()
    assert mixture.subs(X, 3) == 3 + 9


def test_c_puts_a_sum_that_is_the_first_coefficient_in_brackets():
    a, b = map(expressions.symbol, "ab")
    text = expressions._c_printer()((a + b) * X**2 + X, {}, "f")
    assert eval(text, {"a": 1, "b": 2, "x": 3}) == 3 * 9 + 3


# The plain text.


def warp(x, lo, hi, velocity):
    """DiTAC's flow in 4,000 steps of Heun's method."""
    knots, y = np.linspace(lo, hi, len(velocity)), x.astype("float64")
    for _ in range(4000):
        k1 = (hi - lo) * np.interp(y, knots, velocity)
        y = y + (k1 + (hi - lo) * np.interp(y + k1 / 4000, knots, velocity)) / 8000
    return y


def read(text, x):
    """The value of a formula's right-hand side."""
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text.replace("^", "**"))
    text = re.sub(r"(?<=[\dx)]) (?=[a-zA-Z(])(?!for )", "*", text)
    names = {name: getattr(np, name) for name in ("exp", "sin", "cos", "abs")}
    names |= {name: getattr(keras.activations, name) for name in ("relu", "tanh", "sigmoid")}
    names |= {
        "x": x,
        "max": np.maximum,
        "min": np.minimum,
        "H": lambda x: np.where(x > 0, 1.0, 0.0),
    }
    names |= {"erf": special.erf}
    names |= {"Phi": special.ndtr, "warp": lambda x, lo, hi, *v: warp(x, lo, hi, v)}
    *pieces, last = text.split("; ")
    value = eval(last.removesuffix("*between").removesuffix(" between"), names) + 0 * x
    for piece in pieces:
        expression, condition = piece.split(" for ")
        value = np.where(eval(condition, names), eval(expression, names), value)
    return value


@every_activation
def test_the_text_says_what_the_expression_says(cls):
    layer = built(cls, 2)
    x = np.linspace(-3, 3, 25)
    for group, line in enumerate(layer.formula().splitlines()):
        expected = rounded(evaluated(layer.sympy(group), x), "float64")
        # Six digits of every coefficient, times powers of up to 3^5.
        np.testing.assert_allclose(read(line.split(" = ")[1], x), expected, rtol=1e-4, atol=1e-4)


# LaTeX.


@every_function
def test_latex_is_balanced_and_short(cls):
    one = built(cls).latex()
    assert one.startswith("f(x) = ")
    layer = built(cls, 2)
    both = layer.latex()
    assert both.startswith("\\begin{aligned}") and both.count(" &= ") == 2
    assert layer.latex(1).startswith("f_{1}(x) = ") and layer.latex(1).split("= ", 1)[1] in both
    for text in (one, both):
        for left, right in (("{", "}"), (r"\left", r"\right"), (r"\begin", r"\end")):
            assert text.count(left) == text.count(right)
        for number in re.findall(r"\d+\.?\d*", text):
            assert len(number.replace(".", "").lstrip("0")) <= 6


@every_function
def test_latex_without_cases_is_understood_by_matplotlib(cls):
    from matplotlib.mathtext import MathTextParser

    text = built(cls).latex()
    text = re.sub(r"\\begin{cases}.*?\\end{cases}", "x", text)  # which it does not know
    assert MathTextParser("path").parse(f"${text}$").width > 0


def test_latex_of_a_power_of_a_maximum():
    layer = kla.Expression("max(x, 0)**2")
    layer.build((None, 1))
    assert layer.latex() == r"f(x) = \max\left(0, x\right)^{2}"


def test_latex_by_hand():
    layer = PAU((1, 3), initial=([0.5, -1.25], [2.0, 0, -1 / 3]))
    assert layer.latex() == (
        r"f(x) = \frac{0.5 - 1.25 x}{1 + 2 \left|x\right| + 0.333333 \left|x\right|^{3}}"
    )
    layer = APL(1, initial=(-0.2, 1), sharing="layer")
    assert layer.latex() == (r"f(x) = - 0.2 \max\left(0, 1 - x\right) + \max\left(0, x\right)")


# C.


@pytest.fixture(scope="session")
def compiler():
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None and os.environ.get("CI"):
        pytest.fail("there is no C compiler on the PATH, and a CI machine needs one")
    if found is None:
        pytest.skip("there is no C compiler on the PATH")
    return found


def compiled(compiler, folder, source, name, dtype, groups):
    """The C function as one of arrays: `function(x, group)`."""
    scalar = {"float32": "float", "float64": "double"}[dtype]
    group = ", group" if groups > 1 else ""
    loop = (
        f"void all(const {scalar} *x, {scalar} *y, long n, int group) {{\n"
        f"  long i;\n  (void)group;\n  for (i = 0; i < n; i++) y[i] = {name}(x[i]{group});\n}}\n"
    )
    (folder / "f.c").write_text(source + loop)
    flags = "-std=c99 -Wall -Wextra -Werror -pedantic"
    command = [compiler, *flags.split(), "-O2", "-shared", "-fPIC", "f.c", "-o", "f.so", "-lm"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + source
    library = ctypes.CDLL(str(folder / "f.so"))

    def function(x, group=0):
        x = np.ascontiguousarray(x, dtype)
        y = np.empty_like(x)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y)]
        library.all(*pointers, ctypes.c_long(x.size), ctypes.c_int(group))
        return y

    return function


def of_all_sizes(dtype, count=3000):
    """Numbers of every magnitude, and the edges."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    small = rng.normal(size=count, scale=3)
    powers = rng.uniform(info.minexp, info.maxexp - 1, count)
    edges = [0.0, -0.0, 1, -1, info.max, -info.max, info.tiny, -info.tiny, info.tiny / 8]
    edges += [np.inf, -np.inf, np.nan]
    return np.concatenate([small, rng.choice([-1, 1], count) * 2.0**powers, edges]).astype(dtype)


@every_function
@pytest.mark.parametrize("sharing, dtype", CASES)
def test_c_is_the_layer(compiler, cls, dtype, sharing, tmp_path):
    float64_or_skip(dtype)
    layer = built(cls, sharing, dtype=dtype)
    function = compiled(compiler, tmp_path, layer.to_c("f", dtype), "f", dtype, layer.groups)
    x = of_all_sizes(dtype)
    y = layer.curve(x)
    moderate = abs(x) < 1e6  # beyond float32 cannot tell the phase of a DEU's oscillation
    allowed = tolerance(layer, x, y)
    for group in range(layer.groups):
        c = function(x, group)
        np.testing.assert_array_equal(np.isnan(c), np.isnan(x))
        np.testing.assert_allclose(c[-3:], y[group, -3:], rtol=1e-6)  # cos in a vector of others
        assert_close(c[moderate], y[group, moderate], allowed[group, moderate])
        far = POINTS.astype(dtype)
        exact = rounded(evaluated(layer.sympy(group), far), dtype)
        # Evaluated in double, rounded to dtype.
        eps = max(np.finfo(dtype).eps, 2.0**-40)
        np.testing.assert_allclose(function(far, group), exact, rtol=eps, atol=2.0**-30)


@pytest.mark.parametrize("cls", [*ACTIVATIONS, MORE["PAU-B"], MORE["PAU-N"], MORE["SLAF-12"]])
def test_c_is_right_for_coefficients_of_any_size(compiler, cls, tmp_path):
    layer = built(cls, 8)
    rng = np.random.default_rng(3)
    for name, value in layer.parameters().items():
        size = rng.choice([1e-30, 1e-3, 1, 1, 1e3, 1e25], value.shape)
        value = size * rng.normal(size=value.shape) * (rng.random(value.shape) < 0.8)
        getattr(layer, name).assign(value)
    function = compiled(compiler, tmp_path, layer.to_c("f"), "f", "float32", 8)
    x = POINTS.astype("float32")
    for group in range(8):
        exact = rounded(evaluated(layer.sympy(group), x), "float32")
        c = function(x, group)
        assert not np.isnan(c).any()
        # Double's roundings of terms that may cancel; the largest terms have 1e25.
        np.testing.assert_allclose(c, exact, rtol=1e-6, atol=1e-12)


def test_c_at_a_pole_is_not_nan(compiler, tmp_path):
    layer = PAU((1, 2), "N", initial=([1.0, -1.0], [0.0, -1.0]))  # (1 - x) / (1 - x²)
    function = compiled(compiler, tmp_path, layer.to_c("f"), "f", "float32", 1)
    np.testing.assert_array_equal(function([0, 1, 3]), [1, 0, 0.25])


def test_c_of_two_layers_goes_into_one_file(compiler, tmp_path):
    source = PAU((9, 9), initial="tanh").to_c("one") + SLAF(9).to_c("two")
    assert "one_number" in source and "two_number" in source
    compiled(compiler, tmp_path, source, "one", "float32", 1)


# Wrong use.


@every_activation
def test_wrong_use_is_named(cls):
    layer = cls(sharing="channel", name="here")
    for show in (layer.sympy, layer.latex, layer.to_c):
        with pytest.raises(ValueError, match="'here' has no parameters yet.*build"):
            show()
    layer.build((None, 4))
    for group in (-1, 4, 0.0, True):
        for show in (layer.sympy, layer.latex):
            with pytest.raises(ValueError, match=f"a group from 0 to 3. Received: group={group}"):
                show(group)
    for name in ("two words", "2x", "float", "", "größe", 3, "tanh", "fabsf", "NAN", "_f"):
        with pytest.raises(ValueError, match=re.escape(f"Received: name={name!r}")):
            layer.to_c(name)
    with pytest.raises(ValueError, match="Received: dtype='float16'"):
        layer.to_c("f", "float16")
    name = layer.parameter_list()[0].name
    getattr(layer, name).assign(getattr(layer, name) * np.nan)
    for show in (layer.sympy, layer.latex, layer.to_c):
        with pytest.raises(ValueError, match=f"needs finite coefficients. Received: {name}="):
            show()


def test_an_unknown_function_is_named_with_the_way_out():
    def wave(x):
        return ops.sin(x)

    with pytest.raises(ValueError, match="Mixture's wave has no known expression.*keras.activ"):
        Mixture((wave,)).sympy()


def test_an_activation_without_an_expression_says_so():
    class Plain(kla.LearnableActivation):
        def parameter_list(self):
            return [kla.layers.Parameter("a", 1, 1.0)]

    with pytest.raises(NotImplementedError, match="needs a method `expression"):
        Plain().sympy()


def test_without_sympy_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sympy", None)
    layer = PAU()
    assert layer.formula()
    with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[analysis\]'"):
        layer.sympy()
