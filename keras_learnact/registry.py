"""The table of every activation of the package, made from what each says of itself."""

import csv
import functools
import html
import inspect
import io
import itertools
import math
import random
import re
import shutil
import textwrap
from importlib import resources
from typing import NamedTuple

import keras

from keras_learnact import kernels, layers

# Written by `python -m benchmarks.costs`: what was measured, where, and the ratios.
COSTS = "costs.csv"


class Activation(NamedTuple):
    """One activation of the package.

    Attributes:
        name: of its class, `keras_learnact.<name>`.
        formula: plain text, a few lines at most; all of it stands in the class's docstring.
        parameters: how many numbers of each name a group has; empty for a layer that learns none
            of its own, or as many as its units ask for.
        starts_as: the function at the start, as `Expression` reads it. "random" where parameters
            are drawn, "" for a layer without such parameters.
        start_error: how far the start is from that function at most, for x in [-3, 3].
        smoothness: how often it is continuously differentiable, whatever its parameters: -1 where
            it may jump, 0 where it may have kinks, inf where it is smooth. None for a layer that is
            not element-wise.
        kernel: whether there is a compiled kernel of it.
        forward, forward_backward: how many times as long as ReLU it took, see `Activations.costs`;
            None where that was not measured.
        source: authors, title, year.
    """

    name: str
    formula: str
    parameters: dict
    starts_as: str
    start_error: float
    smoothness: float | None
    kernel: bool
    forward: float | None
    forward_backward: float | None
    source: str


class Activations(tuple):
    """`Activation`s in alphabetical order, shown as a table where they are printed.

    Attributes:
        costs: what the costs are: the machine, the versions, the size, the day.
    """

    def __new__(cls, activations, costs):
        table = super().__new__(cls, activations)
        table.costs = costs
        return table

    def __getitem__(self, which):
        """By name, say `activations()["PAU"]`, or as of any tuple."""
        if not isinstance(which, str):
            return super().__getitem__(which)
        for activation in self:
            if activation.name == which:
                return activation
        raise KeyError(
            f"There is no activation of this name. Received: {which!r}. "
            f"There are {', '.join(activation.name for activation in self)}."
        )

    def __contains__(self, which):
        """Whether there is an activation of this name, or this `Activation`."""
        return super().__contains__(which) or any(a.name == which for a in self)

    def __str__(self):
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.HORIZONTALS, show_lines=True, padding=(0, 1, 0, 0), pad_edge=False)
        name, formula, parameters, start, smooth, kernel, cost, source = _HEADINGS
        # Two of the eight below two others, or the table would be wider than a window.
        heads = f"{name}\n{source}", formula, f"{parameters}\n{start}", smooth, kernel, cost
        # Without these, the last columns would be cut where the others take all the width.
        for head, least in zip(heads, (None, 30, None, 8, 6, 5), strict=True):
            table.add_column(head, overflow="fold", min_width=least)
        for name, formula, parameters, start, *rest, source in map(_cells, self):
            cells = f"{name}\n{source}", formula, f"{parameters}\n{start}".strip(), *rest
            table.add_row(*map(Text, cells))
        out = io.StringIO()
        width = max(120, shutil.get_terminal_size().columns)
        Console(file=out, width=width, color_system=None).print(table)
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        return "\n".join([*lines, _legend(self.costs)])

    __repr__ = __str__

    def _repr_html_(self):
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in _HEADINGS)
        rows = (
            "".join(f"<td style='white-space: pre-wrap'>{html.escape(c)}</td>" for c in _cells(a))
            for a in self
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        legend = html.escape(_legend(self.costs)).replace("\n", "<br>")
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{legend}</p>"


_HEADINGS = (
    *("activation", "f(x)", "parameters", "starts as", "smooth", "kernel", "cost", "source"),
)


def activations():
    """Every activation of the package: formula, parameters, start, source, kernel, cost.

    Print it, show it in a notebook, or read it.

    Returns:
        `Activations`, a tuple of `Activation`s.

    Example:

    >>> print(activations())  # the table
    >>> activations()["APL"].parameters
    {'slopes': 2, 'hinges': 2}
    """
    measured, costs = _costs()
    found = []
    for name in sorted(layers.__all__, key=str.lower):
        cls = getattr(layers, name)
        if issubclass(cls, keras.layers.Layer) and cls is not layers.LearnableActivation:
            found.append(_activation(cls, measured.get(name, (None, None))))
    return Activations(found, costs)


def formula_of(doc):
    """What a docstring says in the line "Formula…:", and the indented paragraphs below it.

    Returns:
        The text of the line, "" if it has none, and a list of paragraphs.
    """
    _, _, after = doc.partition("\nFormula")
    head, *paragraphs = after.split("\n\n")
    indented = itertools.takewhile(lambda paragraph: paragraph.startswith("    "), paragraphs)
    return " ".join(head.strip(":, \n").split()), list(map(textwrap.dedent, indented))


def source_of(doc):
    """What a docstring says after "Reference:", on one line."""
    _, _, after = doc.partition("\nReference: ")
    return " ".join(after.partition("\n\n")[0].split())


def _activation(cls, cost):
    doc = inspect.getdoc(cls)
    head, paragraphs = formula_of(doc)
    element_wise = issubclass(cls, layers.LearnableActivation)
    parameters, has_kernel = {}, hasattr(cls, "kernel")
    if element_wise:
        layer = _with_no_trace(cls)
        parameters = {p.name: p.count for p in layer.parameter_list()}
        has_kernel = isinstance(layer.kernel(training=False), kernels.Call)
    return Activation(
        name=cls.__name__,
        formula="\n".join([*([head] if head else []), *paragraphs[:1]]).replace("`", ""),
        parameters=parameters,
        starts_as=(cls.starts_as or "random") if element_wise else "",
        start_error=cls.start_error if element_wise else 0.0,
        smoothness=cls.smoothness if element_wise else None,
        kernel=has_kernel,
        forward=cost[0],
        forward_backward=cost[1],
        source=source_of(doc),
    )


def _with_no_trace(cls):
    """A layer, made without a number of the random generators or of Keras' names."""
    state = random.getstate()
    try:
        return cls(sharing="layer", name=cls.__name__.lower())
    finally:
        random.setstate(state)


@functools.cache
def _costs():
    """(forward, forward + backward) over ReLU by the name of a class; what was measured where."""
    file = resources.files("keras_learnact") / COSTS
    if not file.is_file():
        return {}, ""
    costs, *lines = file.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines)
    ratios = {row["activation"]: (row["forward"], row["forward + backward"]) for row in rows}
    return {name: tuple(map(float, pair)) for name, pair in ratios.items()}, costs.strip("# ")


def _cells(activation):
    counts = activation.parameters
    numbers = ", ".join(name if n == 1 else f"{name} ({n})" for name, n in counts.items())
    if counts:
        numbers = f"{sum(counts.values())}: {numbers}"
    start = activation.starts_as
    if activation.start_error:
        start += f", within {activation.start_error:g}"
    cost = ""
    if activation.forward is not None:
        cost = f"{activation.forward:.2f}\n{activation.forward_backward:.2f}"
    return (
        activation.name,
        activation.formula,
        numbers,
        start,
        _SMOOTH[activation.smoothness],
        "yes" if activation.kernel else "no",
        cost,
        _short(activation.source),
    )


_SMOOTH = {None: "", -1: "may jump", 0: "C⁰", 1: "C¹", 2: "C²", math.inf: "C∞"}


def _short(source):
    """The first author and the year."""
    names, _, rest = source.partition(":")
    year = re.search(r"\b(19|20)\d\d\b", rest)
    first, *others = names.split(", ")
    return f"{first}{' et al.' if others else ''} {year[0] if year else ''}".strip()


def _legend(costs):
    lines = [
        "parameters: of each group, see `sharing`. smooth: C⁰ may have kinks, C¹ has a continuous "
        "derivative, C∞ all; whatever the parameters."
    ]
    if costs:
        lines.append(
            f"cost: how many times as long as ReLU, forward; below, forward and backward. {costs}"
        )
    return "\n".join(lines)
