"""Philox4x32-10: random numbers computed from a key and a counter, equal on every backend.

Integer arithmetic in `keras.ops`, 32 bits at a time in int32 (which wraps), because that is what
all backends have. A compiled kernel regenerates the same words in its backward pass.

Reference: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from keras import ops

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

# 12 bits a draw: ten from the 128 bits of one block, which serves the ten coefficients of a PAU.
DRAW_BITS = 12
DRAWS_PER_BLOCK = 10


def philox(counter, key):
    """The four 32-bit words of one block.

    Args:
        counter: four int32 tensors (their bits are the words), of shapes that broadcast.
        key: two int32 tensors.

    Returns:
        List of four int32 tensors.
    """
    c = [ops.convert_to_tensor(word, "int32") for word in counter]
    k = [ops.convert_to_tensor(word, "int32") for word in key]
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c[0], MULTIPLIERS[0])
        high1, low1 = _multiply(c[2], MULTIPLIERS[1])
        c = [
            ops.bitwise_xor(high1, ops.bitwise_xor(c[1], k[0])),
            low1,
            ops.bitwise_xor(high0, ops.bitwise_xor(c[3], k[1])),
            low0,
        ]
        k = [k[0] + _int32(WEYL[0]), k[1] + _int32(WEYL[1])]
    return c


def symmetric_uniform(shape, count, key, dtype):
    """`count` independent tensors, uniform in (-1, 1) with mean 0.

    Element i, in row-major order, of draw j depends on the key, i and j alone: bits of the block
    with counter (i, 0, j // 10, 0). The values are the 4096 odd multiples of 1/4096. Compiled
    kernels take more elements: the second word of the counter is the high 32 bits of i.

    Args:
        shape: tuple of integers or scalar tensors; at most 2^31 - 1 elements in all.
        count: number of draws for each element.
        key: integer tensor of two words, as `keras.random.SeedGenerator.next()` gives it.
        dtype: float dtype of the draws.

    Returns:
        List of `count` tensors.
    """
    key = ops.cast(key, "int32")
    size = 1
    for n in shape:
        size = size * n
    index = ops.reshape(ops.arange(size, dtype="int32"), shape)
    draws = []
    for block in range(-(-count // DRAWS_PER_BLOCK)):
        words = philox([index, 0, block, 0], [key[0], key[1]])
        draws += _fields(words)
    return [
        ops.cast(2 * field + 1 - 2**DRAW_BITS, dtype) * 2.0**-DRAW_BITS for field in draws[:count]
    ]


def _fields(words):
    """Ten 12-bit fields: two from the low 24 bits of each word, two from the four high bytes."""
    fields = []
    for word in words:
        fields += [ops.bitwise_and(word, 0xFFF), _shift_right(word, 12, 0xFFF)]
    for first, second in (words[:2], words[2:]):
        fields.append(_shift_right(first, 24, 0xFF) + 256 * _shift_right(second, 24, 0xF))
    return fields


def _multiply(x, multiplier):
    """High and low word of the 64-bit product, from 16-bit halves."""
    low, high = ops.bitwise_and(x, 0xFFFF), _shift_right(x, 16, 0xFFFF)
    m_low, m_high = multiplier & 0xFFFF, multiplier >> 16
    low_low, high_low, low_high = low * m_low, high * m_low, low * m_high
    carry = (
        _shift_right(low_low, 16, 0xFFFF)
        + ops.bitwise_and(high_low, 0xFFFF)
        + ops.bitwise_and(low_high, 0xFFFF)
    )
    top = (
        high * m_high
        + _shift_right(high_low, 16, 0xFFFF)
        + _shift_right(low_high, 16, 0xFFFF)
        + ops.right_shift(carry, 16)
    )
    return top, x * _int32(multiplier)


def _shift_right(x, bits, mask):
    """Logical shift: the mask removes the copies of the sign."""
    return ops.bitwise_and(ops.right_shift(x, bits), mask)


def _int32(word):
    """The int32 with the bits of an unsigned 32-bit word."""
    return word - 2**32 if word >= 2**31 else word
