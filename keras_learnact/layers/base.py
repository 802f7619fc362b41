"""What every learnable activation has in common, written once."""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from keras_learnact import bounds, expressions, kernels

PACKAGE = "keras_learnact"
SHARING_WORDS = ("layer", "channel", "unit")


class Parameter(NamedTuple):
    """One named parameter of an activation: `count` numbers for every group.

    Args:
        name: attribute and weight name, the letter or word of the paper.
        count: how many numbers each group has.
        initial: where they start: `count` numbers, the same for every group, or a Keras
            initializer (called with the shape of the weight, `[groups, count]`).
        regularizer: optional Keras regularizer.
        constraint: optional Keras constraint.
        shared: whether all groups share these numbers: then the weight is `[1, count]`.
    """

    name: str
    count: int
    initial: object
    regularizer: object = None
    constraint: object = None
    shared: bool = False


class _BuiltWithoutShape(type(keras.layers.Layer)):
    """Builds a layer right after its construction if one set of parameters serves all of it.

    `Dense(activation=…)` and recurrent cells never build their activation: without this its
    weights would be missing from the model until the first call on data.
    """

    @property
    def __signature__(cls):  # that of `__call__` would say nothing
        first, *rest = inspect.signature(cls.__init__).parameters.values()
        return inspect.Signature(rest)

    def __call__(cls, *args, **kwargs):
        layer = super().__call__(*args, **kwargs)
        if layer.sharing == "layer":
            layer.build(None)
        return layer


class LayerWithPath(keras.layers.Layer):
    """A layer that says what it runs."""

    @property
    def _math_dtype(self):
        return "float64" if self.compute_dtype == "float64" else "float32"

    def why_no_kernel(self):
        """Why a call does not run a compiled kernel, or ""."""
        raise NotImplementedError

    @property
    def path(self):
        """What a call made now runs: `"kernel"`, or `"reference: …"`, the formula, and why.

        What was traced before, as a model's `predict` is at its first call, keeps its way.

        It hides Keras' own `path`, a layer's place in its model, by which a `DTypePolicyMap` is
        asked. A layer that has such a map keeps that meaning; of any other
        `keras.layers.Layer.path.fget(layer)` is the place.
        """
        if isinstance(self._dtype_policy, keras.dtype_policies.DTypePolicyMap):
            return super().path
        why = self.why_no_kernel()
        return f"reference: {why}" if why else "kernel"


class LearnableActivation(LayerWithPath, metaclass=_BuiltWithoutShape):
    """An element-wise function whose parameters are learned.

    A subclass says what its parameters are (`parameter_list`), what the function is
    (`function`), and how one group's function reads (`text`). Everything else is here:
    sharing, dtypes, building, saving, `curve`, `formula` and `parameters`.

    Args:
        sharing: who shares one set of parameters.
            `"layer"`: all elements. The weights exist from construction on.
            `"channel"`: each channel (each index of `axis`) has its own set.
            An integer G: G groups of contiguous channels; the number of channels must be a
            multiple of G.
            `"unit"`: each non-batch element has its own set; needs known sizes.
        axis: the channel axis, of `"channel"` and of an integer `sharing`. -1 is channels last,
            1 is channels first.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape: any shape. Output shape: the same.

    Output dtype: the layer's compute dtype. The arithmetic is done in float32 (in float64 under
    a float64 policy), whatever the compute dtype.
    """

    # What `keras_learnact.activations()` says of it, and the contract test holds it to.
    starts_as = ""  # its start as a formula that `Expression` reads; "" where it is drawn at random
    start_error = 0.0  # how far the start is from that formula at most, for x in [-3, 3]
    # How often it is continuously differentiable, whatever its parameters: -1 where it may jump, 0
    # where it may have kinks, math.inf where it is smooth.
    smoothness = 0

    # Whether `function` computes the operations of `expression` as they stand, so that a part may
    # overflow where the value does not. Of a class outside of this package bounds assume it.
    as_it_stands = False

    def __init_subclass__(cls, **kwargs):
        """A kernel or an expression of an older `function` than the class has is not its own."""
        super().__init_subclass__(**kwargs)

        def age(name):
            """In which of the classes it stands, from the newest."""
            return next(i for i, c in enumerate(cls.__mro__) if name in vars(c))

        if age("kernel") > min(age("function"), age("training_function")):
            cls.kernel = LearnableActivation.kernel
        if age("expression") > age("function"):
            cls.expression = LearnableActivation.expression

    def __init__(self, *, sharing="layer", axis=-1, **kwargs):
        super().__init__(**kwargs)
        name = type(self).__name__
        if isinstance(sharing, bool) or not (
            sharing in SHARING_WORDS or (isinstance(sharing, int) and sharing >= 1)
        ):
            raise ValueError(
                f'{name}: `sharing` must be "layer", "channel", "unit", or a number of channel '
                f"groups >= 1. Received: sharing={sharing!r}"
            )
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                f"{name}: `axis` must be an integer other than 0, which is the batch axis "
                f"(-1: channels last, 1: channels first). Received: axis={axis!r}"
            )
        self.sharing = sharing
        self.axis = axis
        self.groups = None  # how many sets of parameters; known when built
        self.supports_masking = True

    # What an activation says of itself.

    def parameter_list(self):
        """The activation's `Parameter`s, in the order in which its formula names them."""
        raise NotImplementedError

    def function(self, x, **parameters):
        """The formula in `keras.ops`: the truth that every kernel is tested against.

        Args:
            x: float32 or float64 tensor of any shape.
            **parameters: for each parameter a tensor of x's dtype whose first axis is `count`;
                `p[j]` is the j-th number of every group, in a shape that broadcasts with `x`.

        Returns:
            A tensor of x's shape and dtype.
        """
        raise NotImplementedError

    def training_function(self, x, **parameters):
        """`function` as it is during training; differs only for randomised activations."""
        return self.function(x, **parameters)

    def kernel(self, training):
        """How the compiled kernel of `function` (of `training_function`) is called.

        A class that has a `function` or a `training_function` of its own inherits none.

        Returns:
            A `kernels.Call`, or a string that says why there is no kernel.
        """
        return f"{type(self).__name__} has no compiled kernel"

    def expression(self, x, **parameters):
        """One group's function as an exact SymPy expression, as at inference, for every finite x.

        Sums, products, integer powers, exp, sin, cos, tanh, erf, log, sqrt, Abs, Max, Min, and
        Piecewise with conditions linear in x; no floating-point numbers. The layer's guards
        (bounds on values or on time) are part of it.

        Bounds take the operations of the expression for those of `function`, and ask each how it
        rounds: write what `function` computes. SymPy makes x of (x + 1) - 1, and x² of x³ / x;
        where `function` does compute these, `sympy.Add(x + 1, -1, evaluate=False)` keeps them.

        A class that has a `function` of its own inherits no expression.

        Args:
            x: a real SymPy symbol.
            **parameters: for each parameter a list of `count` SymPy numbers, or of real symbols,
                which give the general formula.

        Raises:
            NotImplementedError: for symbols, where the form of the function depends on their
                values.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what its expression is: it needs a method "
            "`expression(x, **parameters)`, see LearnableActivation."
        )

    def text(self, **parameters):
        """The right-hand side of one group's formula, as plain text in `x`.

        Args:
            **parameters: for each parameter a NumPy array of shape `[count]`.
        """
        raise NotImplementedError

    def why_no_bounds(self):
        """Why it is not known how far what a call returns is from the expression, or ""."""
        kind, known = type(self), LearnableActivation
        own = [
            name for name in ("call", "__call__") if getattr(kind, name) is not getattr(known, name)
        ]
        if own:
            return (
                f"it has a `{own[0]}` of its own, of which the expression says nothing. Write what "
                "it computes as `function` and `expression`."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns too, at every call
            made = keras.backend.standardize_dtype(ops.zeros((), self._math_dtype).dtype)
        if made != self._math_dtype:
            return (
                f"Keras computes {self._math_dtype} in {made} here. Use dtype={made!r}; or on JAX: "
                'jax.config.update("jax_enable_x64", True).'
            )
        return ""

    # What every activation gives.

    def why_no_kernel(self):
        return self._why_not(False) or self._why_not(True)

    def parameters(self):
        """The current parameters: a dict from name to a NumPy array `[groups, count]`.

        Also of a parameter that all groups share, whose weight is `[1, count]`.
        """
        self._assert_built("parameters()")
        values = {}
        for p in self.parameter_list():
            value = ops.convert_to_numpy(ops.cast(getattr(self, p.name), self._math_dtype))
            values[p.name] = np.array(np.broadcast_to(value, (self.groups, p.count)))
        return values

    def curve(self, x, parameters=None):
        """The function of every group at the points `x`, as at inference.

        Args:
            x: array-like of any shape, say `[points]`.
            parameters: a dict as `parameters()` gives it, with any number of groups, say an
                earlier one. Default: the current parameters.

        Returns:
            NumPy array of shape `[groups, *x.shape]`.
        """
        parameters = self.parameters() if parameters is None else parameters
        x = np.asarray(x, self._math_dtype)
        columns = {
            name: np.reshape(np.transpose(value), (-1, len(value)) + (1,) * x.ndim)
            for name, value in parameters.items()
        }
        groups = groups_in(parameters)
        y = self.function(
            ops.convert_to_tensor(np.broadcast_to(x, (groups, *x.shape))),
            **{name: ops.convert_to_tensor(value, x.dtype) for name, value in columns.items()},
        )
        return ops.convert_to_numpy(y)

    def formula(self):
        """The function with its current coefficients as plain text, one line for each group."""
        self._assert_built("formula()")
        values = self.parameters()
        heads = ["f(x)"] if self.groups == 1 else [f"f{g}(x)" for g in range(self.groups)]
        return "\n".join(f"{h} = {self.text_of_group(values, g)}" for g, h in enumerate(heads))

    def text_of_group(self, parameters, group):
        """`text` of one group of a dict as `parameters()` gives it, say an earlier one."""
        with np.errstate(all="ignore"):  # what has diverged reads inf and nan
            return self.text(**{name: value[group] for name, value in parameters.items()})

    # The function as an expression, all of it from `expression`.

    def sympy(self, group=0):
        """One group's function with its current coefficients as an exact SymPy expression.

        Needs `pip install 'keras_learnact[analysis]'`, as `latex` and `to_c` do.

        Args:
            group: which set of parameters.

        Returns:
            An expression in `sympy.Symbol("x", real=True)`, without floating-point numbers; see
            `expression`.

        Raises:
            ValueError: for a layer that is not built, an unknown group, or coefficients that are
                not finite.

        Example:

        >>> PAU((1, 1), initial=([0.5, -1.25], [2.0])).sympy()
        (1/2 - 5*x/4)/(2*Abs(x) + 1)
        """
        return self._expression("sympy()", group)

    def latex(self, group=None):
        """The function with its current coefficients, to six digits, as LaTeX.

        Args:
            group: which set of parameters. None: all, below each other in an `aligned`.

        Returns:
            `f(x) = …`, with `f_{0}(x)`, `f_{1}(x)`, … where there are several groups.

        Raises:
            ValueError: as `sympy`.

        Example:

        >>> print(PAU((1, 1), initial=([0.5, -1.25], [2.0])).latex())
        f(x) = \\frac{0.5 - 1.25 x}{1 + 2 \\left|x\\right|}
        """
        self._assert_built("latex()")
        shown = range(self.groups) if group is None else [group]
        lines = [expressions.latex(self._expression("latex()", g)) for g in shown]
        heads = ["f(x)"] if self.groups == 1 else [f"f_{{{g}}}(x)" for g in shown]
        if len(lines) == 1:
            return f"{heads[0]} = {lines[0]}"
        rows = (f"{head} &= {line}" for head, line in zip(heads, lines, strict=True))
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def to_c(self, name=None, dtype="float32"):
        """C99 source text of the function with its current coefficients, which needs nothing of us.

        It is evaluated in double and right for every finite x; f(±∞) is what the layer gives, and
        f(nan) is nan. Not for `-ffast-math`.

        Args:
            name: the C function's name. Default: the layer's.
            dtype: "float32" or "float64": whether it takes and returns a `float` or a `double`.

        Returns:
            A self-contained part of a C file: `float name(float x)`, or, where there are several
            groups, `float name(float x, int group)`, which gives nan for a group that is not
            there.

        Raises:
            ValueError: as `sympy`, for a name that is not a C identifier, or another dtype.

        Example:

        >>> with open("pau.c", "w") as file:
        ...     file.write(model.layers[1].to_c("pau"))
        """
        self._assert_built("to_c()")
        name = self.name if name is None else name
        expressions.check_c(name, dtype)
        values = [self._values_of_group("to_c()", g) for g in range(self.groups)]
        x, table = expressions.symbol("x"), None
        if self.groups > 1:
            symbols = {
                p.name: [expressions.symbol(f"{p.name}_{i}") for i in range(p.count)]
                for p in self.parameter_list()
            }
            try:
                general = self.expression(x, **symbols)
            except NotImplementedError:  # its form depends on the numbers
                pass
            else:
                table = {
                    s: [float(value[parameter][i]) for value in values]
                    for parameter, row in symbols.items()
                    for i, s in enumerate(row)
                }
        return expressions.to_c(
            name,
            dtype,
            [general] if table else [self.sympy(g) for g in range(self.groups)],
            table,
            self.curve([-math.inf, math.inf]).tolist(),
            f"{type(self).__name__} {self.name!r}, written by keras_learnact.",
        )

    def _expression(self, what, group):
        values = self._values_of_group(what, group)
        numbers = {name: list(map(expressions.exact, value)) for name, value in values.items()}
        return self.expression(expressions.symbol("x"), **numbers)

    def _values_of_group(self, what, group):
        self._assert_built(what)
        layer = f"{type(self).__name__} {self.name!r}"
        if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < self.groups:
            raise ValueError(
                f"{layer}: {what} needs a group from 0 to {self.groups - 1}. "
                f"Received: group={group!r}"
            )
        values = {name: value[group] for name, value in self.parameters().items()}
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{layer}: {what} needs finite coefficients. "
                    f"Received: {name}={value.tolist()} in group {group}."
                )
        return values

    # What is certain of every activation, see keras_learnact.bounds.

    def range(self, lo, hi):
        """Certain bounds of what the layer returns between two numbers.

        They hold for every finite number x of the layer's dtype with lo <= x <= hi, at inference,
        by the formula and by the kernel, with all their rounding; for this package's activations
        also at ±inf. Where the function is rational or piecewise linear they are its exact least
        and greatest value but for that rounding; elsewhere certified interval arithmetic encloses
        both. What is certain is the exact function; how far the layer's rounding goes from it is a
        model, a few units in the last place for every operation, which the tests try to refute
        (see `keras_learnact.bounds`).

        Args:
            lo, hi: numbers or arrays that broadcast; lo <= hi, and ±inf may stand among them.

        Returns:
            `(least, greatest)`: NumPy float64 arrays `[groups, *shape of lo and hi]`. ±inf where
            the function grows without bound, overflows, or may have a pole; of a class outside
            of this package, the layer may also return nan there.

        Raises:
            ValueError: the layer has no parameters yet, or some are not finite; lo > hi, or nan; a
                layer with a `call` of its own; a `Mixture` of functions that are not Keras'.
            ImportError: SymPy or python-flint is not installed.

        Example:

        >>> layer = PAU(degrees=(2, 0), initial=((0, 0, 1), ()))  # x²
        >>> least, greatest = layer.range(-1, 3)  # [0.], [9.000002]
        """
        return bounds.value_range(self, lo, hi)

    def lipschitz(self, lo, hi):
        """The largest magnitude of the derivative between two numbers.

        It is that of the exact function f, not of a gradient that was computed in float32, rounded
        up: |f(x) - f(y)| is at most so many times |x - y|. A kink counts with the slopes on both
        of its sides; over a jump, or a pole, it is inf.

        Args:
            lo, hi: see `range`.

        Returns:
            NumPy float64 array `[groups, *shape of lo and hi]`.

        Raises:
            ValueError, ImportError: as `range`.
        """
        return bounds.lipschitz(self, lo, hi)

    def extrema(self, lo, hi):
        """Where the function turns between two numbers.

        A turn is where it ends to rise and begins to fall, or the other way round: at a smooth
        extremum, at a kink, or by a jump. A flat stretch between a rise and a fall counts once, in
        its middle; one without a fall after the rise does not (ReLU has no extremum). Where the
        function is rational or piecewise linear none is missed, and x is exact to a few float64
        units; elsewhere turns are not seen that change the value by less than the layer rounds.

        Args:
            lo, hi: two numbers, lo <= hi, between which it is looked; ±inf are allowed.

        Returns:
            For every group a list of `keras_learnact.bounds.Extremum(x, value, kind)`, in order of
            x; `kind` is "minimum" or "maximum".

        Raises:
            ValueError, ImportError: as `range`. Also ValueError where the function turns too often
                to be listed, say in hundreds of waves.
        """
        return bounds.extrema(self, lo, hi)

    def interval(self, low, high):
        """Bounds of the output where every input element is known to lie between two numbers.

        It is `range` for every element, with the function of the element's own group: a step of
        interval bound propagation.

        Args:
            low, high: array-likes of the layer's input shape, the batch first; low <= high.

        Returns:
            Two NumPy float64 arrays of that shape.

        Raises:
            ValueError, ImportError: as `range`. Also ValueError for shapes that differ, or are not
                the layer's.
        """
        return bounds.interval(self, low, high)

    def slope_interval(self, low, high):
        """Bounds of the exact derivative where every input element lies between two numbers.

        Args:
            low, high: see `interval`.

        Returns:
            Two NumPy float64 arrays of that shape. At a kink they hold the slopes of both sides,
            at a jump ±inf.

        Raises:
            ValueError, ImportError: as `interval`.
        """
        return bounds.slopes(self, low, high)

    # Keras' side.

    def build(self, input_shape=None):
        if self.groups is not None:
            return  # built at construction, or loaded
        if input_shape is None and self.sharing != "layer":
            raise ValueError(
                f"{type(self).__name__}(sharing={self.sharing!r}) needs an input shape to build. "
                f'Received: input_shape=None. Give one, or use sharing="layer".'
            )
        shape, repeats = self._parameter_shape(input_shape)
        self.groups = math.prod(shape) // repeats
        for p in self.parameter_list():
            weight = self.add_weight(
                shape=(1 if p.shared else self.groups, p.count),
                initializer=_initializer(p.initial),
                regularizer=p.regularizer,
                constraint=p.constraint,
                autocast=False,  # coefficients are never rounded to float16
                name=p.name,
            )
            weight.activation_parameter = True  # see keras_learnact.optimizers
            setattr(self, p.name, weight)

    def call(self, inputs, training=None):
        shape, repeats = self._parameter_shape(inputs.shape)
        if not self._why_not(training):
            params = kernels.side_by_side(list(self._values().values()))
            x = ops.cast(inputs, self.compute_dtype)
            return kernels.run(self.kernel(training), x, params, self._covered_axis(inputs.shape))
        x = ops.cast(inputs, self._math_dtype)
        function = self.training_function if training else self.function
        return ops.cast(function(x, **self._columns(shape, repeats)), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        _mark_as_shareable(self)
        return {**super().get_config(), "sharing": self.sharing, "axis": self.axis}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: deserialize(value) for name, value in config.items()})

    # Shapes.

    def _why_not(self, training):
        """Why a call does not run the kernel, or ""."""
        count = sum(p.count for p in self.parameter_list())
        return kernels.why_not(self.kernel(training), self.compute_dtype, count)

    def _values(self):
        """Every parameter `[groups, count]` as the formula and the kernel see it."""
        values = {}
        for p in self.parameter_list():
            weight = getattr(self, p.name)
            # No cast that changes nothing: in eager mode it would take as long as the kernel.
            same = weight.dtype == self._math_dtype
            value = weight.value if same else ops.cast(weight, self._math_dtype)
            repeated = p.shared and self.groups > 1
            values[p.name] = ops.broadcast_to(value, (self.groups, p.count)) if repeated else value
        return values

    def _columns(self, shape, repeats):
        """Every parameter as `[count, *shape]`; a group's number is repeated for its channels."""
        columns = {}
        for name, value in self._values().items():
            weight = ops.transpose(value)
            if repeats > 1:
                weight = ops.repeat(weight, repeats, axis=1)
            columns[name] = ops.reshape(weight, (weight.shape[0], *shape))
        return columns

    def _covered_axis(self, input_shape):
        """The first of the input's axes that the groups cover together, see `kernels.run`."""
        if self.sharing in ("layer", "unit"):
            return 0 if self.sharing == "layer" else 1
        return self.axis % len(input_shape)

    def _parameter_shape(self, input_shape):
        """The shape in which `groups * repeats` numbers broadcast with the input; the repeats."""
        if self.sharing == "layer":
            return (), 1
        name, shape = type(self).__name__, tuple(input_shape)
        if self.sharing == "unit":
            sizes, way_out = shape[1:], 'Fix the sizes, or use sharing="channel".'
            if None in sizes:
                raise ValueError(
                    f'{name}(sharing="unit") needs known sizes of all axes but the first. '
                    f"Received: input_shape={shape}. {way_out}"
                )
            groups = self._checked_groups(math.prod(sizes), shape, way_out)
            self._assert_any(groups, shape)
            return sizes, 1
        rank = len(shape)
        if not -rank < self.axis < rank:
            raise ValueError(
                f"{name}(axis={self.axis}) needs an input that has this axis beside the batch "
                f"axis. Received: input_shape={shape}. Use an axis between {1 - rank} and "
                f"{rank - 1}, other than 0."
                if rank > 1
                else f"{name}(sharing={self.sharing!r}) needs a batch axis and a channel axis. "
                f'Received: input_shape={shape}. Use sharing="layer".'
            )
        axis = self.axis % rank
        channels = shape[axis]
        if channels is None:
            raise ValueError(
                f"{name}(sharing={self.sharing!r}) needs a known size of axis {self.axis}. "
                f'Received: input_shape={shape}. Fix that size, or use sharing="layer".'
            )
        self._assert_any(channels, shape)
        groups = channels if self.sharing == "channel" else self.sharing
        if channels % groups:
            divisors = [g for g in range(1, channels + 1) if channels % g == 0]
            raise ValueError(
                f"{name}(sharing={groups}) needs a number of channels that is a multiple of "
                f"{groups}. Received: input_shape={shape}, so {channels} channels on axis "
                f"{self.axis}. Use one of {divisors} groups."
            )
        self._checked_groups(groups, shape, "Build the layer anew for another number of channels.")
        return (channels,) + (1,) * (rank - 1 - axis), channels // groups

    def _assert_any(self, numbers, shape):
        if numbers == 0:
            raise ValueError(
                f"{type(self).__name__}(sharing={self.sharing!r}) needs an input with a number for "
                f'a set of parameters. Received: input_shape={shape}. Use sharing="layer".'
            )

    def _checked_groups(self, groups, shape, way_out):
        if self.groups is not None and groups != self.groups:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} was built with {self.groups} sets of "
                f"parameters and this input needs {groups}. Received: input_shape={shape}. "
                f"{way_out}"
            )
        return groups

    def _assert_built(self, what):
        if self.groups is None:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} has no parameters yet, so {what} has "
                "nothing to show. Call the layer (or its model) on data, or build(input_shape)."
            )


def _mark_as_shareable(layer):
    """Makes a saved model say which layers have this very object as their activation.

    While Keras saves, it notes an object's identity from its second mention on; the first, in an
    `activation=` argument, is copied before that, and one object would be loaded as two. An entry
    before the first mention makes Keras note the identity every time.
    """
    mentions = global_state.get_global_attribute("shared_objects/id_to_config_map")
    if mentions is not None:  # saving
        mentions.setdefault(id(layer), {})


def standardized(value):
    """Sequences and arrays as (nested) tuples, as Keras does: equal after a file's lists too."""
    if hasattr(value, "__array__") and not callable(value):  # of any backend
        value = np.asarray(value).tolist()
    return tuple(map(standardized, value)) if isinstance(value, (list, tuple)) else value


# Of an activation with a few numbers, for messages.
WANTED = {
    "initial": "numbers or Keras initializers",
    "regularizer": "one Keras regularizer, or one or None for each of",
    "constraint": "one Keras constraint, or one or None for each of",
}


class NumbersActivation(LearnableActivation):
    """An activation whose parameters are one number each.

    Args:
        initial: where they start, a number or a Keras initializer for each of `names`; of one name
            that alone.
        sharing, axis: see `LearnableActivation`.
        regularizer, constraint: a Keras regularizer and a constraint, or a tuple of one for each of
            `names`; None for none.
        **kwargs: of a Keras layer.
    """

    names = ()  # of the parameters

    def __init__(self, initial, sharing, axis, regularizer, constraint, **kwargs):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        self.initial = standardized(initial)
        self._start = [
            start(type(self).__name__, argument, value, 1)
            for argument, value in self._of_each("initial", self.initial)
        ]
        self.regularizer = self._got(keras.regularizers, "regularizer", regularizer)
        self.constraint = self._got(keras.constraints, "constraint", constraint)

    def parameter_list(self):
        def each(value):
            return value if isinstance(value, tuple) else [value] * len(self.names)

        parts = self._start, each(self.regularizer), each(self.constraint)
        return [Parameter(name, 1, *of_it) for name, *of_it in zip(self.names, *parts, strict=True)]

    def get_config(self):
        return {
            **super().get_config(),
            "initial": serialize(self.initial),
            "regularizer": serialize(self.regularizer),
            "constraint": serialize(self.constraint),
        }

    def _of_each(self, argument, value):
        """What a message calls it, and the value, for each name."""
        if len(self.names) == 1:
            return [(argument, value)]
        if not isinstance(value, tuple) or len(value) != len(self.names):
            raise ValueError(
                f"{type(self).__name__}: `{argument}` must be {WANTED[argument]} "
                f"({', '.join(self.names)}). Received: {argument}={value!r}"
            )
        return [(f"{argument}[{i}]", one) for i, one in enumerate(value)]

    def _got(self, module, argument, value):
        if not isinstance(value, (list, tuple)):
            return module.get(value)
        return tuple(module.get(one) for _, one in self._of_each(argument, tuple(value)))


class TwoPhaseActivation(LearnableActivation):
    """An activation whose parameters stay at their start in a first phase of the training.

    While its weight `frozen`, which is not trainable, is 1, no gradient flows to its parameters.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.frozen = None  # a weight, when built

    def build(self, input_shape=None):
        if self.frozen is None:
            self.frozen = self.add_weight(
                shape=(),
                # NumPy, as in the base class: a cell may be building this while it is traced.
                initializer=lambda shape, dtype=None: np.zeros(shape, dtype),
                trainable=False,
                autocast=False,
                name="frozen",
            )
        super().build(input_shape)

    def _values(self):
        frozen = self.frozen > 0
        return {
            name: ops.where(frozen, ops.stop_gradient(value), value)
            for name, value in super()._values().items()
        }


def groups_in(parameters):
    """How many groups a dict has that is like `parameters()`; without parameters there is one."""
    return max(map(len, parameters.values()), default=1)


def serialize(value):
    """A constructor argument as `get_config` gives it: callables become plain data."""
    if isinstance(value, (list, tuple)):
        return _of_each(serialize, value)
    return keras.saving.serialize_keras_object(value) if callable(value) else value


def deserialize(value):
    """The constructor argument that `serialize` made plain data of, also within sequences."""
    if isinstance(value, (list, tuple)):
        return _of_each(deserialize, value)
    return keras.saving.deserialize_keras_object(value) if isinstance(value, Mapping) else value


def _of_each(function, sequence):
    """A list or tuple; not of the sequence's own type, which TensorFlow may have wrapped."""
    kind = tuple if isinstance(sequence, tuple) else list
    return kind(map(function, sequence))


def serialize_start(initial, numbers):
    """As `serialize`, of a start that may be a function, as `fitting.fit` takes it.

    Of a function that Keras could not bring back, say NumPy's, a lambda or a layer with weights:
    the numbers that it came to, which are what its layer has of it.

    Args:
        initial: the constructor's argument.
        numbers: a function without arguments that gives numbers which can take its place.
    """
    if not callable(initial):
        return serialize(initial)
    if getattr(initial, "__name__", "") == "<lambda>":  # Keras would save it, and refuse to load it
        return numbers()
    try:
        plain = serialize(initial)
        same = deserialize(plain) is initial
    except Exception:  # of many kinds, from what Keras tries one after the other
        same = False
    return plain if same else numbers()


def start(layer, argument, value, count):
    """What `Parameter.initial` takes, from what the user gave for it.

    Args:
        layer, argument: their names, for the message.
        value: a number, `count` numbers, or a Keras initializer (also its name or config).
        count: how many numbers each group has.
    """
    wanted = (
        f"{layer}: `{argument}` must be {count} number(s), one number for all, or a Keras "
        f"initializer. Received: {argument}={value!r}"
    )
    if isinstance(value, (str, Mapping)) or callable(value):
        try:
            return keras.initializers.get(value)
        except (TypeError, ValueError) as error:
            raise ValueError(wanted) from error
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or numbers.shape not in ((), (count,)):
        raise ValueError(wanted)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{layer}: `{argument}` must be finite. Received: {argument}={value!r}")
    return numbers


def _initializer(initial):
    """A Keras initializer from `Parameter.initial`."""
    if callable(initial):
        return initial
    numbers = np.asarray(initial)

    # NumPy, not keras.ops: a weight may be created while a cell is being traced.
    return lambda shape, dtype=None: np.broadcast_to(numbers, shape).astype(dtype or "float64")
