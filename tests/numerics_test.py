import keras
import numpy as np
import pytest
import scipy.special
from keras import ops

from keras_learnact import kernels
from keras_learnact.numerics import erf, erfc, exponent, log1p_ratio, mantissa, power_of_two


def test_exponents_by_hand():
    x = np.array([1, 1.999, 2, -8, 0.5, 3.4e38, 1.2e-38], "float32")
    assert ops.convert_to_numpy(exponent(ops.convert_to_tensor(x))).tolist() == [
        *(0, 0, 1, 3, -1, 127, -126),
    ]


def test_what_is_no_normal_number_has_an_exponent_beyond_all_others():
    x = np.array([0, 1e-40, np.inf, np.nan], "float32")
    assert ops.convert_to_numpy(exponent(ops.convert_to_tensor(x))).tolist() == [
        *(-127, -127, 128, 128),
    ]


@pytest.mark.parametrize(
    "dtype, integer, top", [("float32", "int32", 127), ("float64", "int64", 1023)]
)
def test_powers_of_two_are_exact_and_end_in_zero(dtype, integer, top):
    tensor = ops.convert_to_tensor(np.array([-5 * top, -top, 1 - top, -1, 0, 3, top], integer))
    if keras.backend.standardize_dtype(tensor.dtype) != integer:
        pytest.skip("JAX has no 64-bit numbers unless its 64-bit mode is on")
    expected = [0, 0, 2.0 ** (1 - top), 0.5, 1, 8, 2.0**top]
    assert ops.convert_to_numpy(power_of_two(tensor, dtype)).tolist() == expected


def test_a_mantissa_by_hand():
    x = ops.convert_to_tensor(np.array([0, -6, 0.75, 3 * 2.0**126, 3 * 2.0**-126], "float32"))
    part, k = map(ops.convert_to_numpy, mantissa(x))
    assert part.tolist() == [0, -1.5, 1.5, 1.5, 1.5]
    assert k.tolist() == [-126, 2, -1, 127, -125]
    _, k = mantissa(x, least=-10)
    assert ops.convert_to_numpy(k).tolist() == [-10, 2, -1, 127, -10]


def test_exports_have_error_functions_of_plain_operations():
    v = np.concatenate([np.linspace(-6, 6, 1001), [0, 1e-30, -0.5, 0.5, 64, -1e30]]).astype(
        "float32"
    )
    with kernels.portable():
        y = ops.convert_to_numpy(erf(ops.convert_to_tensor(v)))
        rest = ops.convert_to_numpy(erfc(ops.convert_to_tensor(np.abs(v))))
        assert np.isnan(ops.convert_to_numpy(erf(ops.convert_to_tensor([np.float32(np.nan)]))))
    # A few roundings of float32; far out, those of v² in exp(-v²).
    np.testing.assert_allclose(y, scipy.special.erf(v), rtol=1e-6)
    np.testing.assert_allclose(rest, scipy.special.erfc(np.abs(v)), rtol=1e-5, atol=1e-37)


def test_a_logarithm_over_its_argument():
    w = np.array([-0.5, -0.1, 0, 1e-30, 0.5, 1], "float32")
    y = ops.convert_to_numpy(log1p_ratio(ops.convert_to_tensor(w)))
    expected = [2 * np.log(2), 10 * np.log(1 / 0.9), 1, 1, 2 * np.log(1.5), np.log(2)]
    np.testing.assert_allclose(y, expected, rtol=5e-7)  # a few roundings of float32
