"""Learned functions as exact SymPy expressions, as LaTeX and as C.

`LearnableActivation.expression` says what a function is; everything here is derived from that.
"""

import functools

import keras
import numpy as np


def sympy():
    """SymPy, which is imported only where an expression is asked for."""
    try:
        import sympy
    except ImportError as error:
        raise ImportError(
            "Expressions need SymPy: pip install 'keras_learnact[analysis]'"
        ) from error
    return sympy


def symbol(name):
    """A real SymPy symbol."""
    return sympy().Symbol(name, real=True)


def exact(value):
    """The SymPy number that is exactly this floating-point number; symbols stay as they are."""
    sp = sympy()
    if isinstance(value, sp.Basic):
        return value
    return sp.Rational(*float(value).as_integer_ratio())


def decimal(value):
    """The SymPy number that a constant of the source code means: 1/10 for 0.1."""
    return sympy().Rational(repr(value))


def polynomial(coefficients, x, first=0):
    """Σ_k coefficients[k] x^(first + k)."""
    return sympy().Add(*(c * x ** (first + k) for k, c in enumerate(coefficients)))


def absolute(value):
    """|value| as it stands: SymPy alone would take factors out of it."""
    sp = sympy()
    return sp.Abs(value, evaluate=not value.free_symbols)


def clip(value, low, high):
    """`value` kept between two numbers, as it stands: SymPy would try long to simplify it."""
    sp, evaluate = sympy(), not value.free_symbols
    return sp.Max(low, sp.Min(high, value, evaluate=evaluate), evaluate=evaluate)


# The element-wise functions of keras.activations with Keras' default settings, each in a form that
# loses no digits and does not overflow when it is evaluated as it stands.
KERAS = {
    "linear": lambda sp, x: x,
    "relu": lambda sp, x: sp.Max(0, x),
    "relu6": lambda sp, x: sp.Max(0, sp.Min(6, x)),
    "leaky_relu": lambda sp, x: sp.Piecewise((x, x > 0), (x / 5, True)),
    "elu": lambda sp, x: sp.Piecewise((x, x > 0), (sp.exp(x) - 1, True)),
    "selu": lambda sp, x: sp.Piecewise(
        (exact(1.0507009873554805) * x, x > 0),
        (exact(1.0507009873554805) * exact(1.6732632423543772) * (sp.exp(x) - 1), True),
    ),
    "celu": lambda sp, x: sp.Piecewise((x, x > 0), (sp.exp(x) - 1, True)),
    "sigmoid": lambda sp, x: 1 / (1 + sp.exp(-x)),
    "hard_sigmoid": lambda sp, x: sp.Max(0, sp.Min(6, x + 3)) / 6,
    "tanh": lambda sp, x: sp.tanh(x),
    "hard_tanh": lambda sp, x: sp.Max(-1, sp.Min(1, x)),
    "softplus": lambda sp, x: sp.Max(0, x) + sp.log(1 + sp.exp(-sp.Abs(x))),
    "softsign": lambda sp, x: x / (1 + sp.Abs(x)),
    "silu": lambda sp, x: x / (1 + sp.exp(-x)),
    "hard_silu": lambda sp, x: x * sp.Max(0, sp.Min(6, x + 3)) / 6,
    "gelu": lambda sp, x: x * (1 + sp.erf(x / sp.sqrt(2))) / 2,
    "log_sigmoid": lambda sp, x: sp.Min(0, x) - sp.log(1 + sp.exp(-sp.Abs(x))),
    "mish": lambda sp, x: x * sp.tanh(KERAS["softplus"](sp, x)),
    "exponential": lambda sp, x: sp.exp(x),
    "soft_shrink": lambda sp, x: sp.Max(0, x - sp.S.Half) + sp.Min(0, x + sp.S.Half),
    "hard_shrink": lambda sp, x: sp.Piecewise((x, x < -sp.S.Half), (0, x <= sp.S.Half), (x, True)),
    "tanh_shrink": lambda sp, x: x - sp.tanh(x),
    "squareplus": lambda sp, x: (x + sp.sqrt(x**2 + 4)) / 2,
    "sparse_plus": lambda sp, x: sp.Piecewise((0, x <= -1), ((x + 1) ** 2 / 4, x < 1), (x, True)),
    "sparse_sigmoid": lambda sp, x: sp.Max(0, sp.Min(1, (x + 1) / 2)),
}


def keras_name(function):
    """The name in `KERAS` of a function of keras.activations, or None."""
    return next((name for name in KERAS if keras.activations.get(name) is function), None)


def why_rounded(names, dtype):
    """Why functions with these names in `KERAS` are not known to keep the digits of `dtype`, or "".

    Other names may be among them.
    """
    rounded = sorted({"gelu", "leaky_relu"} & set(names))
    if rounded and dtype == "float64" and keras.backend.backend() == "tensorflow":
        return (
            f"Keras' {' and '.join(rounded)} have float32 constants in float64 on TensorFlow. "
            "Use dtype='float32'."
        )
    return ""


def of_callable(function, x, name):
    """What an element-wise function makes of the symbol `x`, exactly.

    Args:
        function: a function of `keras.activations`, or a callable that uses nothing but
            arithmetic.
        x: SymPy symbol.
        name: what the user calls the function, for the message.
    """
    sp = sympy()
    known = keras_name(function)
    if known:
        return KERAS[known](sp, x)
    try:
        result = sp.sympify(function(x))
    except Exception as error:
        reason = f"it raised {type(error).__name__}: {error}"
    else:
        if isinstance(result, sp.Expr) and result.free_symbols <= x.free_symbols:
            return result.replace(lambda e: e.is_Float, sp.Rational)
        reason = f"it gave {result!r}"
    raise ValueError(
        f"{name} has no known expression: called on the SymPy symbol x, {reason}. "
        f"Received: {function!r}. Use a function of keras.activations ({', '.join(KERAS)}) "
        "or one that uses only +, -, *, / and ** of numbers."
    )


def latex(expression):
    """LaTeX with six digits for each number."""
    expression, names = _named(expression)
    printer = _latex_printer()
    words = [printer._print(_rounded(expression, 6))]
    words += [f"{name} = {printer._print(_rounded(value, 6))}" for name, value in names.items()]
    return r",\quad ".join(words)


def _named(expression):
    """The expression with names for what holds x between numbers, and a dict of these names.

    Only for what stands there more than once: cos(t) e^t with t = max(0, min(1, x)).
    """
    sp, x = sympy(), symbol("x")
    found = {}

    def visit(part):
        nodes = list(sp.preorder_traversal(part))
        if len(nodes) > 1 and all(
            node.is_number or node == x or isinstance(node, (sp.Max, sp.Min)) for node in nodes
        ):
            found[part] = found.get(part, 0) + 1
        else:
            for argument in part.args:
                visit(argument)

    if isinstance(expression, sp.Expr):
        visit(expression)
    parts = [part for part, count in found.items() if count > 1 and part.has(x)]
    heads = ["t"] if len(parts) == 1 else [f"t_{i}" for i in range(1, len(parts) + 1)]
    names = {symbol(head): part for head, part in zip(heads, parts, strict=True)}
    with sp.evaluate(False):
        return expression.xreplace({part: name for name, part in names.items()}), names


def _rounded(expression, digits):
    """Every number but integers and exponents in decimals."""
    sp = sympy()
    if isinstance(expression, sp.Expr) and expression.is_number:
        value = float(f"{float(expression):.{digits - 1}e}")
        few = value.is_integer() and abs(value) < 10**digits
        return sp.Integer(value) if few else sp.Float(value, digits)
    if expression.is_Pow and expression.exp.is_number:
        return sp.Pow(_rounded(expression.base, digits), expression.exp)
    if not expression.args:
        return expression
    if expression.is_Add and expression.has(sp.Abs(symbol("x"))):
        polynomial = _horner(expression, symbol("x"))
        if polynomial:  # powers of |x|, of which SymPy makes x^2 |x|
            u = symbol(r"\left|x\right|")
            coefficients = [_rounded(c, digits) for c in polynomial[1]]
            return sp.Add(*(c * u**k for k, c in enumerate(reversed(coefficients))))
    parts = expression.args
    if expression.is_Mul:  # √2/2 x has one number
        number, rest = expression.as_independent(*expression.free_symbols)
        parts = [number, *sp.Mul.make_args(rest)]
    parts = [_rounded(part, digits) for part in parts]
    if isinstance(expression, (sp.Max, sp.Min)):
        return expression.func(*parts, evaluate=False)
    return expression.func(*parts)


@functools.cache
def _latex_printer():
    from sympy.printing.latex import LatexPrinter

    def _numbers_first(expression):
        return not expression.is_number, str(expression)

    class Printer(LatexPrinter):
        # Of a power SymPy prints the base with its exponent, as text.
        def _print_Max(self, expression, exp=None):
            return self._call(r"\max", expression, exp)

        def _print_Min(self, expression, exp=None):
            return self._call(r"\min", expression, exp)

        def _call(self, function, expression, exp):
            arguments = ", ".join(map(self._print, sorted(expression.args, key=_numbers_first)))
            power = f"^{{{exp}}}" if exp else ""
            return rf"{function}\left({arguments}\right){power}"

    return Printer({"order": "rev-lex", "ln_notation": True})


# What C needs for numbers m 2^e with an exponent of their own, which do not overflow.
_SCALED = {
    "of": """static {n} {n}_of(double m) {{
  {n} y = {{m, 0}};
  if (m != 0.0 && !isinf(m)) y.m = frexp(m, &y.e);
  return y;
}}""",
    "value": "static double {n}_value({n} a) {{ return ldexp(a.m, a.e); }}",
    "plus": """static {n} {n}_plus({n} a, {n} b) {{
  {n} y;
  if (a.m == 0.0) return b;
  if (b.m == 0.0) return a;
  if (a.e < b.e) return {n}_plus(b, a);
  y = {n}_of(a.m + ldexp(b.m, b.e - a.e));
  y.e += a.e;
  return y;
}}""",
    "times": """static {n} {n}_times({n} a, {n} b) {{
  {n} y = {n}_of(a.m * b.m);
  y.e += a.e + b.e;
  return y;
}}""",
    "over": """static {n} {n}_over({n} a, {n} b) {{
  {n} y;
  if (b.m == 0.0) b = {n}_of(DBL_MIN); /* a pole: no 0 / 0 */
  y = {n}_of(a.m / b.m);
  y.e += a.e - b.e;
  return y;
}}""",
    "power": """static {n} {n}_power({n} a, int k) {{
  {n} y = a;
  while (--k > 0) y = {n}_times(y, a);
  return y;
}}""",
    "abs": """static {n} {n}_abs({n} a) {{
  a.m = fabs(a.m);
  return a;
}}""",
    "max": """static {n} {n}_max({n} a, {n} b) {{
  {n} minus = {{-b.m, b.e}};
  if (a.m == 0.0) return b.m > 0.0 ? b : a;
  return {n}_plus(a, minus).m < 0.0 ? b : a;
}}""",
    "min": """static {n} {n}_min({n} a, {n} b) {{
  {n} minus = {{-b.m, b.e}};
  if (a.m == 0.0) return b.m < 0.0 ? b : a;
  return {n}_plus(a, minus).m > 0.0 ? b : a;
}}""",
    "sqrt": """static {n} {n}_sqrt({n} a) {{
  if (a.e % 2 != 0) {{
    a.m *= 2.0;
    a.e -= 1;
  }}
  a.m = sqrt(a.m);
  a.e /= 2;
  return a;
}}""",
    "exp": """static {n} {n}_exp({n} a) {{
  {n} y;
  double x = fmax(-1e8, fmin(1e8, {n}_value(a))), k = floor(x / 0.6931471805599453);
  if (fabs(x) < 700.0) return {n}_of(exp(x));
  y = {n}_of(exp(x - k * 0.6931471805599453));
  y.e += (int)k;
  return y;
}}""",
}
_USES = {  # besides `of`
    "over": [],
    "power": ["times"],
    "max": ["plus"],
    "min": ["plus"],
    "exp": ["value"],
}


_C_TYPES = {"float32": "float", "float64": "double"}


def check_c(name, dtype):
    """Raises for a name or a dtype that `to_c` does not take."""
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or not name.isascii()
        or name.startswith("_")
        or name in _C_WORDS
        or name.rstrip("fl") in _C_FUNCTIONS
        or name in _C_FUNCTIONS
        or name.isupper()  # a macro may have that name
    ):
        raise ValueError(
            "to_c: `name` must be a C identifier that <math.h> leaves free. "
            f'Received: name={name!r}. Give another: to_c("f")'
        )
    if dtype not in _C_TYPES:
        raise ValueError(f'to_c: `dtype` must be "float32" or "float64". Received: dtype={dtype!r}')


def to_c(name, dtype, expressions, table, at_infinity, comment):
    """C99 source text of a function `name(x)`, or `name(x, group)` where there are several groups.

    It is evaluated in double. Beyond the |x| where a part of the expression could overflow, it is
    evaluated in numbers m 2^e with an exponent of their own.

    Args:
        name: a C identifier.
        dtype: "float32" or "float64", of the argument and of the value.
        expressions: for each group a SymPy expression of the real symbol x; with a table one for
            all.
        table: None, or a dict from the expression's other symbols to one number for each group.
        at_infinity: for each group f(-∞) and f(∞).
        comment: what the first line says.
    """
    ctype, groups = _C_TYPES[dtype], len(at_infinity)
    largest = float(np.finfo(dtype).max)
    ranges = {s: (min(column), max(column)) for s, column in (table or {}).items()}
    bound = min(_safe_until(expression, ranges, largest) for expression in expressions)

    columns = {s: f"p[{i}]" for i, s in enumerate(table or {})}

    def printer(expression, names=None):
        return _c_printer()(expression, {**columns, **(names or {})}, name)

    parameter = ", const double *p" if table else ", int group" if groups > 1 else ""
    helpers = []

    def statements(text_of, expression):
        expression, names = _named(expression)
        lines = [f"const double {t} = {printer(value)};" for t, value in names.items()]
        if not expression.free_symbols - set(columns):
            lines.append("(void)x;")
        return [*lines, f"return {text_of(expression)};"]

    def body(text_of):
        parts = [statements(text_of, expression) for expression in expressions]
        if len(parts) == 1:
            return "".join(f"  {line}\n" for line in parts[0])
        cases = "".join(
            f"    case {g}: {{\n" + "".join(f"      {line}\n" for line in lines) + "    }\n"
            for g, lines in enumerate(parts)
        )
        return f"  switch (group) {{\n{cases}    default: return NAN;\n  }}\n"

    plain = body(printer)
    functions = [f"static double {name}_plain(double x{parameter}) {{\n{plain}}}\n"]
    argument = ", table[group]" if table else ", group" if groups > 1 else ""
    value = f"{name}_plain(x{argument})"
    if bound < largest:
        scaled = _Scaled(f"{name}_number", printer)
        text = body(scaled.value)
        helpers = [f"typedef struct {{\n  double m;\n  int e;\n}} {name}_number; /* m 2^e */\n"]
        helpers += [_SCALED[used].format(n=f"{name}_number") + "\n" for used in scaled.used()]
        functions.append(f"static double {name}_scaled(double x{parameter}) {{\n{text}}}\n")
        value = f"fabs(x) <= {_literal(bound)} ? {value} : {name}_scaled(x{argument})"

    def rows(values):
        return ",\n".join(f"    {{{', '.join(map(_literal, row))}}}" for row in values)

    lines = []
    if table:
        transposed = list(zip(*table.values(), strict=True))
        lines += [
            f"  static const double table[{groups}][{len(table)}] = {{\n{rows(transposed)}}};"
        ]
    if groups > 1:
        lines += [f"  static const double at_infinity[{groups}][2] = {{\n{rows(at_infinity)}}};"]
        lines += [f"  if (group < 0 || group >= {groups}) return NAN;"]
        low, high = "at_infinity[group][0]", "at_infinity[group][1]"
    else:
        low, high = map(_literal, at_infinity[0])
    lines += [
        "  if (isnan(x)) return x;",
        f"  if (isinf(x)) return ({ctype})(x < 0 ? {low} : {high});",
        f"  return ({ctype})({value});",
    ]
    group = ", int group" if groups > 1 else ""
    main = f"{ctype} {name}({ctype} x{group}) {{\n" + "\n".join(lines) + "\n}\n"
    head = f"/* {comment} */\n#include <math.h>\n"
    if f"{name}_divisor(" in plain:  # at a pole 0 / 0 is 0
        divisor = "{ return d == 0.0 ? DBL_MIN : d; }"
        helpers.insert(0, f"static double {name}_divisor(double d) {divisor}\n")
    if any("DBL_MIN" in helper for helper in helpers):
        head = head.replace("#include", "#include <float.h>\n#include")
    return "\n".join([head, *helpers, *functions, main])


_C_WORDS = set(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while main".split()
)


# Of <math.h>, C99 and POSIX; most are there with f and l at their end too.
_C_FUNCTIONS = set(
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh drem erf erfc exp exp10 "
    "exp2 expm1 fabs fdim finite floor fma fmax fmin fmod fpclassify frexp gamma hypot ilogb "
    "isfinite isgreater isgreaterequal isinf isless islessequal islessgreater isnan isnormal "
    "isunordered j0 j1 jn ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf "
    "nan nearbyint nextafter nexttoward pow pow10 remainder remquo rint round scalb scalbln "
    "scalbn signbit signgam significand sin sincos sinh sqrt tan tanh tgamma trunc y0 y1 yn".split()
)


def _literal(value):
    """A C number that reads back as exactly this double."""
    value = float(value)
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return "NAN" if np.isnan(value) else repr(value)


def _number_literal(expression):
    """The double next to an exact number; a nonzero one stays nonzero."""
    return _literal(expression if expression.is_Rational else expression.evalf(25))


def _fraction(product):
    """The factors of a product above and below its fraction bar; numbers stay whole."""
    above, below = [], []
    for factor in product.args:
        if factor.is_Pow and factor.exp.is_negative and not factor.is_number:
            below.append(factor.base**-factor.exp)
        else:
            above.append(factor)
    return above, below


def _is_compound(expression):
    """Whether its C needs brackets as a factor."""
    return (
        expression.is_Add or expression.is_Mul or (expression.is_Pow and not expression.is_number)
    )


def _horner(expression, x):
    """(variable, coefficients, highest first) of a polynomial in x or |x|, or None."""
    sp = sympy()
    if expression.has(sp.Abs(x)):
        u = sp.Dummy("u", nonnegative=True)
        in_u = expression.replace(
            lambda e: e.is_Pow and e.base == x and e.exp.is_Integer and e.exp.is_even,
            lambda e: u**e.exp,
        ).subs(sp.Abs(x), u)
        if not in_u.has(x) and in_u.is_polynomial(u):
            return sp.Abs(x), sp.Poly(in_u, u).all_coeffs()
    elif _is_sum_of_powers(expression, x) and sp.degree(expression, x) > 1:
        return x, sp.Poly(expression, x).all_coeffs()
    return None


def _is_sum_of_powers(expression, x):
    """Whether it is Σ c_k x^k as it stands: another form of a polynomial has its reason."""
    rests = (term.as_independent(x, as_Add=False)[1] for term in expression.args)
    return all(rest.as_base_exp()[0] in (1, x) and rest.is_polynomial(x) for rest in rests)


@functools.cache
def _c_printer():
    """A function from an expression, the names of its symbols and that of the function to C."""
    from sympy.printing.c import C99CodePrinter

    sp = sympy()

    class Printer(C99CodePrinter):
        def _print(self, expression, **kwargs):
            if isinstance(expression, sp.Expr) and expression.is_number:
                return _number_literal(expression)
            return super()._print(expression, **kwargs)

        def _print_Symbol(self, symbol):
            return self.names.get(symbol, symbol.name)

        def _print_Add(self, expression, order=None):
            terms = expression.args
            if len(terms) == 2 and terms[0].is_number:  # no digits lost near exp(u) = 1, log 1
                sign, exp = terms[1].as_coeff_Mul()
                if isinstance(exp, sp.exp) and abs(sign) == 1 and terms[0] == -sign:
                    return f"{'-' if sign < 0 else ''}expm1({self._print(exp.args[0])})"
            polynomial = _horner(expression, self.x)
            if polynomial:
                variable, (c_0, *coefficients) = polynomial
                variable, text = self._print(variable), self._print(c_0)
                for i, c in enumerate(coefficients):
                    text = f"{variable} * {f'({text})' if i or c_0.is_Add else text}"
                    text += f" + {self._print(c)}" if c != 0 else ""
            else:
                text = " + ".join(map(self._print, terms))
            return text.replace("+ -", "- ")

        def _print_log(self, expression):
            one, rest = expression.args[0].as_coeff_Add()
            if one == 1:
                return f"log1p({self._print(rest)})"
            return f"log({self._print(expression.args[0])})"

        def _factor(self, expression):
            text = self._print(expression)
            return f"({text})" if text.startswith("-") or _is_compound(expression) else text

        def _print_Mul(self, expression):
            above, below = _fraction(expression)
            minus = above[:1] == [-1]
            factors = above[1:] if minus else above
            # A negative number may stand first without brackets, anything else not.
            texts = [self._print(f) if f.is_number else self._factor(f) for f in factors[:1]]
            texts += map(self._factor, factors[1:])
            text = ("-" if minus else "") + (" * ".join(texts) or "1.0")
            return text + "".join(f" / {self._divisor(divisor)}" for divisor in below)

        def _divisor(self, expression):
            if expression.is_positive:
                return self._factor(expression)
            return f"{self.name}_divisor({self._print(expression)})"

        def _print_Pow(self, expression):
            base, exponent = expression.as_base_exp()
            if exponent == sp.S.Half:
                return f"sqrt({self._print(base)})"
            if exponent.is_negative:
                return f"1.0 / {self._divisor(base**-exponent)}"
            if exponent.is_Integer and exponent <= 4:
                return " * ".join([self._factor(base)] * int(exponent))
            return f"pow({self._print(base)}, {self._print(exponent)})"

        def _print_Piecewise(self, expression):
            *pieces, last = expression.args
            text = self._print(last.expr)
            for piece in reversed(pieces):
                text = f"({self._print(piece.cond)} ? {self._print(piece.expr)} : {text})"
            return text

    printer = Printer()
    printer.x = symbol("x")

    def to_text(expression, names, name):
        printer.names, printer.name = names, name
        return printer.doprint(expression)

    return to_text


class _Scaled:
    """Prints an expression as calls of the functions in `_SCALED`, and notes which."""

    def __init__(self, name, printer):
        self.name, self.printer = name, printer
        self.noted = {"of", "value"}

    def used(self):
        """The names of the functions in the order of their definition."""
        needed = self.noted.union(*(_USES.get(name, []) for name in self.noted))
        return [name for name in _SCALED if name in needed]

    def value(self, expression):
        """C that computes the expression in scaled numbers and gives a double."""
        return self._call("value", self._print(expression))

    def _call(self, function, *arguments):
        self.noted.add(function)
        return f"{self.name}_{function}({', '.join(arguments)})"

    def _chain(self, function, arguments):
        return functools.reduce(lambda one, other: self._call(function, one, other), arguments)

    def _print(self, expression):
        sp = sympy()
        if expression.is_number or expression.is_Symbol:
            return self._call("of", self.printer(expression))
        arguments = expression.args
        if isinstance(expression, sp.Piecewise):
            *pieces, last = arguments
            text = self._print(last.expr)
            for piece in reversed(pieces):
                condition = self.printer(piece.cond)
                text = f"({condition} ? {self._print(piece.expr)} : {text})"
            return text
        if expression.is_Mul:
            above, below = _fraction(expression)
            text = self._chain("times", map(self._print, above or [sp.S.One]))
            return self._chain("over", [text, *map(self._print, below)])
        if expression.is_Pow and expression.exp == sp.S.Half:
            return self._call("sqrt", self._print(expression.base))
        if expression.is_Pow and expression.exp.is_Integer:
            if expression.exp.is_negative:
                below = self._print(expression.base**-expression.exp)
                return self._call("over", self._call("of", "1.0"), below)
            return self._call("power", self._print(expression.base), str(expression.exp))
        if expression.is_Add:
            polynomial = _horner(expression, symbol("x"))
            if polynomial is None:
                return self._chain("plus", map(self._print, arguments))
            variable, text = self._print(polynomial[0]), self._print(polynomial[1][0])
            for c in polynomial[1][1:]:
                text = self._call("times", text, variable)
                text = self._call("plus", text, self._print(c)) if c != 0 else text
            return text
        for kind, function in ((sp.Max, "max"), (sp.Min, "min")):
            if isinstance(expression, kind):
                return self._chain(function, map(self._print, arguments))
        for kind, function in ((sp.Abs, "abs"), (sp.exp, "exp")):
            if isinstance(expression, kind):
                return self._call(function, self._print(arguments[0]))
        # Any other function, of a double: sin, tanh, erf, log, …; log(1 + u) keeps the digits of u.
        one, rest = arguments[0].as_coeff_Add() if isinstance(expression, sp.log) else (0, None)
        u, argument = symbol("u"), rest if one == 1 else arguments[0]
        value = self._call("value", self._print(argument))
        if isinstance(expression, (sp.sin, sp.cos)):  # of infinity they are nan
            value = f"fmax(-1e300, fmin(1e300, {value}))"
        function = expression.func(1 + u if one == 1 else u)
        return self._call("of", self.printer(function, {u: value}))


def _safe_until(expression, ranges, largest):
    """A power of two, or `largest`: for |x| up to it no part of the expression overflows a double.

    Args:
        expression: SymPy expression of x and other symbols.
        ranges: the least and largest value of each other symbol.
        largest: the largest |x|.
    """
    from mpmath import mpf

    def fits(bound):
        x = symbol("x")
        return _largest_part(expression, {**ranges, x: (-mpf(bound), mpf(bound))}) < 2.0**1000

    if fits(largest):
        return largest
    least, most = 0, int(np.log2(largest))
    if not fits(1.0):
        return 0.0
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(2.0**middle) else (least, middle)
    return 2.0**least


def _largest_part(expression, ranges):
    """The largest magnitude of any part of an expression, by interval arithmetic."""
    import mpmath

    sp = sympy()
    largest = mpmath.mpf(0)

    def product(one, other):
        ends = [a * b for a in one for b in other]
        return min(ends), max(ends)

    def power(base, exponent):
        if exponent == sp.S.Half:
            return mpmath.sqrt(max(base[0], 0)), mpmath.sqrt(max(base[1], 0))
        low, high = base[0] ** abs(int(exponent)), base[1] ** abs(int(exponent))
        if exponent % 2 == 0:
            low, high = 0 if base[0] < 0 < base[1] else min(low, high), max(low, high)
        if exponent > 0:
            return low, high
        # A quotient overflows only where it should: near a pole.
        return (1 / high, 1 / low) if low > 0 or high < 0 else (mpmath.mpf(-1), mpmath.mpf(1))

    def of(e):
        nonlocal largest
        if e.is_number:
            result = (mpmath.mpf(sp.N(e, 20)),) * 2
        elif e.is_Symbol:
            result = tuple(map(mpmath.mpf, ranges[e]))
        elif isinstance(e, sp.Piecewise):
            pieces = [of(piece.expr) for piece in e.args]
            result = min(p[0] for p in pieces), max(p[1] for p in pieces)
        else:
            parts = [of(part) for part in e.args]
            first = parts[0]
            if e.is_Add:
                result = sum(p[0] for p in parts), sum(p[1] for p in parts)
                largest = max(largest, sum(max(map(abs, p)) for p in parts))
            elif e.is_Mul:
                result = functools.reduce(product, parts)
            elif e.is_Pow:
                result = power(first, e.exp)
            elif isinstance(e, sp.Abs):
                least = 0 if first[0] < 0 < first[1] else min(map(abs, first))
                result = least, max(map(abs, first))
            elif isinstance(e, sp.Max):
                result = max(p[0] for p in parts), max(p[1] for p in parts)
            elif isinstance(e, sp.Min):
                result = min(p[0] for p in parts), min(p[1] for p in parts)
            elif isinstance(e, (sp.sin, sp.cos, sp.tanh, sp.erf)):
                result = mpmath.mpf(-1), mpmath.mpf(1)
            elif isinstance(e, sp.exp):
                result = mpmath.exp(first[0]), mpmath.exp(first[1])
            elif isinstance(e, sp.log):
                result = tuple(mpmath.log(max(p, mpmath.mpf(2) ** -1074)) for p in first)
            else:
                result = -mpmath.inf, mpmath.inf  # not known: never plain
        largest = max(largest, *map(abs, result))
        return result

    of(expression)
    return largest
