"""Formulas as text: read without running them, computed with keras.ops, or given to SymPy.

`parse` makes a small tree of a text such as `"x * sigmoid(beta * x)"`. One walk over it gives the
value of tensors or the exact SymPy expression. No text is ever executed: Python's own parser reads
it, and only numbers, names, + - * / ** and calls of `FUNCTIONS` are let through.
"""

import ast
import functools
import math
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_learnact import expressions
from keras_learnact.numerics import finite, limits, mantissa, power_of_two

# What a formula may be, so that no text keeps a computer busy.
LONGEST = 1000  # characters
DEEPEST = 64  # operations inside each other
LARGEST = 1e38  # a number, and what is computed from numbers alone
SMALLEST = 2.0**-126  # the same, unless it is 0: float32 would make 0 of it
HIGHEST = 32  # a number as exponent
STEEPEST = 512  # the degree of a polynomial, or of a fraction of two
_MOST_PARTS = 10_000  # of a SymPy expression: some functions name their argument twice
_MOST_BITS = 2**13  # of a power of a number, which SymPy computes exactly


# Functions of tensors. Arguments and values may be ±∞, where something overflows; no gradient flows
# there. None makes nan of numbers: ∞ - ∞ and 0 · ∞ are 0, ∞ / ∞ is ± 1.


def _until(bound, dtype):
    """The last number of the dtype at which a function is certain not to overflow.

    Args:
        bound: from the largest number to where the function reaches it.
    """
    info = limits(dtype)
    return float(np.nextafter(info.dtype.type(bound(np.longdouble(info.max))), info.dtype.type(0)))


def _grows(function, bottom):
    """exp and expm1, which overflow above and are `bottom` far below."""

    def safe(u):
        least, most = math.log(float(limits(u.dtype).tiny)), _until(np.log, u.dtype)
        y = ops.where(u < least, bottom, function(ops.clip(u, least, most)))
        return ops.where(u > most, float("inf"), y)

    return safe


def _grows_both_ways(function, infinite):
    """sinh and cosh; `infinite` is what they are where they overflow."""

    def safe(u):
        most = _until(lambda largest: np.log(largest) + np.log(np.longdouble(2)), u.dtype)
        return ops.where(ops.abs(u) > most, infinite(u), function(ops.clip(u, -most, most)))

    return safe


def _from(edge, function):
    """A logarithm: beyond the edge of its domain that of the smallest normal number."""

    def safe(u):
        least = float(limits(u.dtype).tiny)
        inside = u > (least if edge == 0 else edge)
        return ops.where(inside, function(ops.where(inside, u, 1.0)), math.log(least))

    return safe


def _sqrt(u):
    inside = u > 0
    return ops.where(inside, ops.sqrt(ops.where(inside, u, 1.0)), 0.0)


def _erf(u):
    # Beyond, the slope is below the normal numbers; Keras' formula for it squares u.
    most = math.sqrt(-math.log(float(limits(u.dtype).tiny)))
    return ops.where(ops.abs(u) > most, ops.sign(u), ops.erf(ops.clip(u, -most, most)))


def _levels_off(function):
    """tanh, or the sigmoid, whose slope is 0 where it has come to 0, 1 or -1."""

    def safe(u):
        y = function(u)
        level = ops.logical_or(y == 0, ops.abs(y) == 1)
        level = ops.logical_and(level, ops.abs(u) > 1)
        return ops.where(level, ops.stop_gradient(y), y)  # no ∞ · 0

    return safe


def _of_finite(function):
    """A function whose derivative is not made for ±∞."""

    def safe(u):
        y = function(finite(u))
        # It grows like u.
        infinite = ops.logical_and(ops.isinf(u), ops.abs(y) > limits(u.dtype).max / 64)
        return ops.where(infinite, ops.sign(y) * float("inf"), y)

    return safe


def _larger(a, b):
    return _normal(ops.where(a >= b, a, b))


def _smaller(a, b):
    return _normal(ops.where(a <= b, a, b))


def _normal(u):
    """u, and 0 for what is below the normal numbers: a comparison may take any of it for 0."""
    below = ops.abs(u) < limits(u.dtype).tiny
    return ops.where(below, u - ops.stop_gradient(u), u)


def _sum(a, b):
    y = a + b
    return ops.where(ops.isnan(y), 0.0, y)


def _product(a, b):
    return _also_infinite(a, b, operator.mul, finite(a) * finite(b))


def _quotient(a, b):
    """a / b; where b is 0, a over the smallest normal number, and no gradient flows."""
    above, below = finite(a), finite(b)
    least = limits(b.dtype).tiny
    pole = ops.abs(below) < least
    above = ops.where(pole, ops.stop_gradient(above), above)
    below = ops.where(pole, least, below)
    # With 1 <= |m| < 2 the derivative, -a / b², does not overflow on the way.
    m, k = mantissa(below)
    y = above / m * power_of_two(-(k // 2), m.dtype) * power_of_two(k // 2 - k, m.dtype)
    return _also_infinite(a, b, operator.truediv, y)


def _also_infinite(a, b, function, y):
    """function(a, b) where one is infinite and the value is a number, y elsewhere."""
    value = function(ops.stop_gradient(a), ops.stop_gradient(b))
    infinite = ops.logical_or(ops.isinf(a), ops.isinf(b))
    return ops.where(ops.logical_and(infinite, ops.logical_not(ops.isnan(value))), value, y)


def _power(u, n):
    """u^n for an integer n."""
    if n < 0:
        return _quotient(ops.ones_like(u), _power(u, -n))
    result = ops.ones_like(u) if n == 0 else None
    while n:
        if n % 2:
            result = u if result is None else _product(result, u)
        n //= 2
        u = _product(u, u) if n else u
    return result


# The vocabulary.


class Function(NamedTuple):
    """One function, or operation, of formulas.

    Attributes:
        tensor: what it is of tensors.
        symbolic: what it is of a `_Symbolic` and SymPy expressions.
        number: what it is of Python's numbers, or None.
        counts: how many arguments it may have.
    """

    tensor: Callable
    symbolic: Callable
    number: Callable | None = None
    counts: range = range(1, 2)


def _same(name):
    """The symbolic form of a function that SymPy has under this name."""
    return lambda s, *u: s.made(getattr(s.sp, name), *u)


def _form(of_symbols):
    """The symbolic form of a function written as an expression of symbols."""
    return lambda s, u: s.put(of_symbols, u)


_ELEMENTARY = {
    "exp": Function(_grows(ops.exp, 0.0), _same("exp"), math.exp),
    "expm1": Function(_grows(ops.expm1, -1.0), _form(lambda sp, u: sp.exp(u) - 1), math.expm1),
    "log": Function(_from(0, ops.log), lambda s, u: s.log(u), math.log),
    "log1p": Function(
        _from(-1, ops.log1p), lambda s, u: s.log(s.made(s.sp.Add, s.sp.S.One, u)), math.log1p
    ),
    "sqrt": Function(_sqrt, lambda s, u: s.sqrt(u), math.sqrt),
    # The slope of ops.abs at 0 is 1 on JAX.
    "abs": Function(lambda u: u * ops.sign(u), _same("Abs"), abs),
    "sign": Function(
        ops.sign, _form(lambda sp, u: sp.Piecewise((-1, u < 0), (0, u <= 0), (1, True)))
    ),
    "max": Function(lambda *u: functools.reduce(_larger, u), _same("Max"), max, range(2, LONGEST)),
    "min": Function(lambda *u: functools.reduce(_smaller, u), _same("Min"), min, range(2, LONGEST)),
    "sin": Function(_of_finite(ops.sin), _same("sin"), math.sin),
    "cos": Function(_of_finite(ops.cos), _same("cos"), math.cos),
    "tan": Function(_of_finite(ops.tan), _same("tan"), math.tan),
    "sinh": Function(
        _grows_both_ways(ops.sinh, lambda u: ops.sign(u) * float("inf")), _same("sinh"), math.sinh
    ),
    "cosh": Function(_grows_both_ways(ops.cosh, lambda u: float("inf")), _same("cosh"), math.cosh),
    "tanh": Function(_levels_off(ops.tanh), _same("tanh"), math.tanh),
    "asinh": Function(ops.arcsinh, _same("asinh"), math.asinh),
    "atan": Function(ops.arctan, _same("atan"), math.atan),
    "erf": Function(_erf, _same("erf"), math.erf),
    "erfc": Function(lambda u: 1 - _erf(u), _form(lambda sp, u: 1 + sp.erf(-u)), math.erfc),
}

# SymPy's own spelling, in which it prints expressions.
_ALSO = {"Abs": "abs", "Max": "max", "Min": "min", "ln": "log", "exponential": "exp"}

FUNCTIONS = {
    **{
        name: Function(_of_finite(keras.activations.get(name)), _form(form))
        for name, form in expressions.KERAS.items()
    },
    "sigmoid": Function(
        _levels_off(keras.activations.sigmoid), _form(expressions.KERAS["sigmoid"])
    ),
    **_ELEMENTARY,
    **{name: _ELEMENTARY[elementary] for name, elementary in _ALSO.items()},
}

_TWO = range(2, 3)
_OPERATIONS = {
    **FUNCTIONS,
    "+": Function(_sum, _same("Add"), operator.add, _TWO),
    "-": Function(
        lambda u, v: _sum(u, -v),
        lambda s, u, v: s.made(s.sp.Add, u, s.minus(v)),
        operator.sub,
        _TWO,
    ),
    "*": Function(_product, _same("Mul"), operator.mul, _TWO),
    "/": Function(
        _quotient, lambda s, u, v: s.made(s.sp.Mul, u, s.power(v, -1)), operator.truediv, _TWO
    ),
    "negative": Function(operator.neg, lambda s, u: s.minus(u), operator.neg),
}
_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_NUMBERS = {"pi": math.pi, "E": math.e}  # as in SymPy
# Which SymPy prints too, where a formula has no value.
_NO_NUMBERS = {"oo": "∞", "zoo": "the infinity of complex numbers", "nan": "nan", "I": "√-1"}
_NEVER_ZERO = {"*", "/", "power", "exp", "erfc"}  # of numbers other than 0


class Node(NamedTuple):
    """One operation of a formula.

    Attributes:
        operation: a name of `_OPERATIONS`; "name"; "number"; or "power", with an integer.
        arguments: `Node`s; of a "number" that is computed from others its operation.
        value: of a "name", a "number" and a "power".
    """

    operation: str
    arguments: tuple = ()
    value: object = None

    def operations(self):
        """The operations of this node and of all below it."""
        return {self.operation}.union(*(node.operations() for node in self.arguments))

    def degrees(self):
        """The degrees that N and D have at most where this node is N / D, two polynomials in x.

        Functions count as their arguments: many are made of straight lines.
        """
        if self.operation in ("name", "number"):
            return int(self.value == "x"), 0
        above, below = zip(*(node.degrees() for node in self.arguments), strict=True)
        if self.operation == "power":
            size = abs(self.value)
            return (size * above[0], size * below[0])[:: 1 if self.value >= 0 else -1]
        if self.operation == "*":
            return sum(above), sum(below)
        if self.operation == "/":
            return above[0] + below[1], below[0] + above[1]
        if self.operation in ("+", "-"):
            return max(above[0] + below[1], above[1] + below[0]), sum(below)
        return max(above), max(below)


class Formula(NamedTuple):
    """A formula that was read, see `parse`.

    Attributes:
        text: the text as it was given.
        root: its `Node`.
        constants: the names in it other than x, in the order in which they occur first.
    """

    text: str
    root: Node
    constants: tuple

    def value(self, x, /, **constants):
        """The formula's value as a tensor.

        Args:
            x: float32 or float64 tensor of any shape.
            **constants: for each name in `constants` a tensor of x's dtype that broadcasts with x.

        Returns:
            A tensor of x's shape and dtype.
        """
        names = {**constants, "x": finite(x)}

        def of(node):
            if node.operation == "name":
                return names[node.value]
            if node.operation == "number":
                return ops.convert_to_tensor(float(node.value), x.dtype)
            arguments = list(map(of, node.arguments))
            if node.operation == "power":
                return _power(*arguments, node.value)
            return _OPERATIONS[node.operation].tensor(*arguments)

        # Some functions make a number of nan.
        return ops.where(ops.isnan(x), x, of(self.root))

    def expression(self, x, smallest, /, **constants):
        """The formula as an exact SymPy expression that keeps the order of its operations.

        Args:
            x: a real SymPy symbol.
            smallest: the SymPy number that is the smallest normal number of the dtype in which
                tensors are computed: the least argument of a logarithm.
            **constants: for each name in `constants` a SymPy number or a real symbol.
        """
        names, symbolic = {**constants, "x": x}, _Symbolic(smallest)

        def of(node):
            if node.operation == "name":
                return names[node.value]
            if node.operation == "number" and not node.arguments:
                return symbolic.number(node.value)
            arguments = list(map(of, node.arguments))
            if node.operation == "number":
                return arguments[0]
            if node.operation == "power":
                return symbolic.power(*arguments, node.value)
            return _OPERATIONS[node.operation].symbolic(symbolic, *arguments)

        return of(self.root)

    def with_numbers(self, **constants):
        """The text with numbers, to six digits and with a point, in the place of names.

        Args:
            **constants: a number for each name in `constants`.
        """

        class Numbers(ast.NodeTransformer):
            def visit_Name(self, node):
                if node.id not in constants:
                    return node
                digits = f"{abs(constants[node.id]):.6g}"
                number = ast.Name(digits if set(digits) & set(".en") else f"{digits}.0")
                minus = np.signbit(constants[node.id])
                return ast.UnaryOp(ast.USub(), number) if minus else number

        tree = Numbers().visit(ast.parse(self.text.strip(), mode="eval"))
        return ast.unparse(tree).replace("+ -", "- ")


class _Symbolic:
    """Makes SymPy expressions that compute what the formula says, operation by operation."""

    def __init__(self, smallest):
        self.sp = expressions.sympy()
        self.smallest = smallest
        self.parts = {}  # how many an expression has, written out

    def number(self, value):
        if value in _NUMBERS.values():
            return self.sp.pi if value == math.pi else self.sp.E
        return expressions.decimal(value)

    def made(self, kind, *arguments):
        """kind(*arguments), evaluated only where SymPy leaves it as it stands."""
        sp = self.sp
        of = [a for a in arguments if isinstance(a, sp.Basic)]
        parts = 1 + sum(self.parts.get(a, 1) for a in of)
        if parts > _MOST_PARTS:
            raise ValueError(
                f"The formula, written out for SymPy, has more than {_MOST_PARTS} parts. "
                "Nest fewer functions."
            )
        if all(a.is_number for a in of if isinstance(a, sp.Expr)):
            result = kind(*arguments)
        elif issubclass(kind, (sp.Max, sp.Min, sp.Abs, sp.Piecewise, sp.core.relational.Rel)):
            result = kind(*arguments, evaluate=False)  # SymPy would try long to simplify them
        elif kind is sp.functions.elementary.piecewise.ExprCondPair:
            result = kind(*arguments)
        else:
            result = kind(*arguments)
            if not self._stands(result, kind, arguments):
                result = kind(*arguments, evaluate=False)
        self.parts[result] = parts
        return result

    def _stands(self, result, kind, arguments):
        """Whether SymPy has made no other operation of it."""
        sp = self.sp
        if kind not in (sp.Add, sp.Mul):
            return result.func is kind and result.args == arguments
        given = [part for a in arguments for part in kind.make_args(a)]
        there = kind.make_args(result)
        if kind is sp.Mul:  # a sign is put before any number, exactly
            given, there = ([abs(p) if p.is_Rational else p for p in ps] for ps in (given, there))
        neutral = {kind.identity: 0}
        return {**Counter(given), **neutral} == {**Counter(there), **neutral}

    def put(self, of_symbols, u):
        """of_symbols(SymPy, symbol) with u in the symbol's place, as it stands."""
        symbol = self.sp.Dummy(real=True)

        def of(e):
            if e == symbol:
                return u
            return self.made(e.func, *map(of, e.args)) if e.has(symbol) else e

        return of(of_symbols(self.sp, symbol))

    def minus(self, u):
        return self.made(self.sp.Mul, self.sp.S.NegativeOne, u)

    def power(self, u, n):
        if u.is_Rational and abs(n) * (u.p.bit_length() + u.q.bit_length()) > _MOST_BITS:
            raise ValueError(
                "The formula, written out for SymPy, has a power of a number with more than "
                f"{_MOST_BITS} bits. Write the number that it is."
            )
        return u if n == 1 else self.made(self.sp.Pow, u, self.sp.Integer(n))

    def sqrt(self, u):
        least = u if u.is_nonnegative else self.made(self.sp.Max, self.sp.S.Zero, u)
        return self.made(self.sp.Pow, least, self.sp.S.Half)

    def log(self, u):
        least = u if (u - 1).is_nonnegative else self.made(self.sp.Max, self.smallest, u)
        return self.made(self.sp.log, least)


# Reading.


def parse(text):
    """Reads a formula in x.

    It is written as in Python and SymPy: numbers, names, `+ - * / **`, parentheses and calls of
    `FUNCTIONS`; `pi` and `E` are numbers. Every name other than x is a constant.

    Args:
        text: str.

    Returns:
        A `Formula`.

    Raises:
        ValueError: for anything else; for a text that is too long, too deeply nested, or has too
            large a number or power; for a number so small that float32 has 0 for it; for a formula
            without x.

    Example:

    >>> parse("x * sigmoid(beta * x)").constants
    ('beta',)
    """
    if not isinstance(text, str) or not text.strip():
        raise _error(text, "must be a text in x, such as 'x * sigmoid(beta * x)'")
    if len(text) > LONGEST:
        raise _error(f"{text[:40]}…", f"may have {LONGEST} characters, not {len(text)}")
    if not text.isascii():
        strange = next(c for c in text if not c.isascii())
        raise _error(text, f"must be written in ASCII, a name in letters, without {strange!r}")
    return _parsed(text)


@functools.lru_cache(maxsize=1024)
def _parsed(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyway
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = getattr(error, "msg", None) or f"{type(error).__name__}: {error}"
        raise _error(text, f"must be one expression ({why})") from error
    reader = _Reader(text)
    root = reader.read(tree, 1)
    if not reader.has_x:
        raise _error(text, "must contain x")
    return Formula(text, root, tuple(reader.constants))


def _error(text, what):
    return ValueError(f"A formula {what}. Received: {text!r}")


class _Reader:
    """Makes `Node`s of Python's syntax tree."""

    def __init__(self, text):
        self.text = text
        self.constants = {}
        self.has_x = False

    def error(self, tree, what):
        part = ast.get_source_segment(self.text.strip(), tree)
        return _error(self.text, f"{what}: {part!r}")

    def read(self, tree, depth):
        if depth > DEEPEST:
            raise _error(self.text, f"may have {DEEPEST} operations inside each other, not more")
        if isinstance(tree, ast.Constant):
            return self.number(tree, tree.value)
        if isinstance(tree, ast.Name):
            return self.name(tree)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, (ast.USub, ast.UAdd)):
            argument = self.read(tree.operand, depth + 1)
            if isinstance(tree.op, ast.UAdd):
                return argument
            return self.made(tree, "negative", argument)
        if isinstance(tree, ast.BinOp) and type(tree.op) in (*_SIGNS, ast.Pow):
            left, right = self.read(tree.left, depth + 1), self.read(tree.right, depth + 1)
            if isinstance(tree.op, ast.Pow):
                return self.power(tree, left, right)
            return self.made(tree, _SIGNS[type(tree.op)], left, right)
        if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitXor):
            raise self.error(tree, "has powers with **, not ^")
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            return self.call(tree, depth)
        raise self.error(
            tree, "has numbers, names, + - * / **, parentheses and functions of numbers, no other"
        )

    def number(self, tree, value):
        if type(value) not in (int, float):
            raise self.error(tree, "has numbers such as 2 and 0.5, no other constant")
        if not abs(value) <= LARGEST:
            raise self.error(tree, f"may have numbers up to {LARGEST:g}")
        digits = ast.get_source_segment(self.text.strip(), tree)
        if value < SMALLEST and (value or re.match(r"[0_.]*[1-9]", digits)):
            raise self.too_small(tree)
        return Node("number", value=value)

    def too_small(self, tree):
        return self.error(tree, f"has numbers from {SMALLEST:.3g} in size, or 0, and this is none")

    def name(self, tree):
        name = tree.id
        if name in _NUMBERS:
            return Node("number", value=_NUMBERS[name])
        if name in _NO_NUMBERS:
            raise self.error(tree, f"has no {name}, which in SymPy is {_NO_NUMBERS[name]}")
        if name in FUNCTIONS:
            raise self.error(tree, f"has {name} as a function, {name}(x), not as a name")
        if name.startswith("_"):
            raise self.error(tree, "has names that begin with a letter")
        if name == "x":
            self.has_x = True
        else:
            self.constants.setdefault(name)
        return Node("name", value=name)

    def call(self, tree, depth):
        name = _ALSO.get(tree.func.id, tree.func.id)
        if name not in FUNCTIONS:
            raise self.error(
                tree.func, f"may call {', '.join(sorted(FUNCTIONS))}, and no other function"
            )
        counts = FUNCTIONS[name].counts
        if tree.keywords or len(tree.args) not in counts:
            wanted = "one argument" if len(counts) == 1 else "two arguments or more"
            raise self.error(tree, f"has {wanted} for {name}, each without a keyword")
        arguments = [self.read(argument, depth + 1) for argument in tree.args]
        return self.made(tree, name, *arguments)

    def power(self, tree, base, exponent):
        if exponent.operation != "number":
            product = self.made(tree, "*", exponent, self.made(tree, "log", base))
            return self.made(tree, "exp", product)
        n = exponent.value
        if abs(n) > HIGHEST:
            raise self.error(tree, f"may have numbers as exponents up to {HIGHEST}")
        if n == int(n):
            return self.folded(tree, Node("power", (base,), int(n)), lambda u: u ** int(n))
        if abs(n) == 0.5:
            root = self.made(tree, "sqrt", base)
            return root if n > 0 else self.made(tree, "/", _ONE, root)
        product = self.made(tree, "*", exponent, self.made(tree, "log", base))
        return self.made(tree, "exp", product)

    def made(self, tree, operation, *arguments):
        # What loses digits or overflows as it stands has a function of its own.
        first, *_ = arguments
        if operation == "-" and first.operation == "exp" and arguments[1] == _ONE:
            operation, arguments = "expm1", first.arguments
        if operation == "log" and first.operation == "+" and _ONE in first.arguments:
            one = first.arguments.index(_ONE)
            operation, arguments = "log1p", (first.arguments[1 - one],)
        if operation == "log1p" and arguments[0].operation == "exp":
            operation, arguments = "softplus", arguments[0].arguments
        node = Node(operation, arguments)
        return self.folded(tree, node, _OPERATIONS[operation].number)

    def folded(self, tree, node, function):
        """The node, or the number that it is."""
        if any(a.operation != "number" for a in node.arguments):
            degree = max(node.degrees())
            if degree > STEEPEST:
                raise self.error(
                    tree, f"may have polynomials up to degree {STEEPEST}, and this has {degree}"
                )
            return node
        if function is None:
            raise self.error(tree, f"needs the number itself for {node.operation} of a number")
        try:
            value = function(*(a.value for a in node.arguments))
        except (ValueError, ArithmeticError):
            value = math.nan
        if not abs(value) <= LARGEST:
            raise self.error(tree, f"has finite numbers up to {LARGEST:g}, and this is none")
        lost = node.operation in _NEVER_ZERO and all(a.value for a in node.arguments)
        if abs(value) < SMALLEST and (value or lost):
            raise self.too_small(tree)
        return Node("number", (node,), value)


_ONE = Node("number", value=1)
