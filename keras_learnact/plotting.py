"""Pictures of learned functions, drawn by matplotlib without a display."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_learnact.layers.base import LearnableActivation
from keras_learnact.observe import named_activations, record_inputs

# Okabe and Ito's palette, which all forms of colour blindness tell apart.
_LEARNED, _START, _INPUTS = "#0072B2", "#666666", "#E69F00"

_WIDTHS = {1: 6.0, 2: 9.0}  # inches of a figure with so many columns
_WIDTH = 12.0  # with more: 1200 pixels
_RANGE = -3.0, 3.0  # shown at least
_POINTS = 601


class Distribution:
    """A histogram of any amount of numbers of any size, in 390 KB.

    Its bins are equally wide in `asinh(100 x)`: 0.8 % of a large number and 0.00008 around zero.
    So nothing needs to be known of the numbers before they come.
    """

    _SCALE, _BINS_PER_UNIT = 100.0, 128
    _LARGEST = 3e38  # nearly float32's; what is larger, up to infinity, is counted here

    def __init__(self):
        self._half = int(np.ceil(np.arcsinh(self._LARGEST * self._SCALE) * self._BINS_PER_UNIT))
        positions = np.arange(-self._half, self._half + 1) / self._BINS_PER_UNIT
        self.edges = np.sinh(positions) / self._SCALE
        self.counts = np.zeros(2 * self._half, np.int64)

    def add(self, numbers) -> None:
        """Counts every number of an array but NaN."""
        numbers = np.asarray(numbers, "float64").ravel()
        numbers = np.clip(numbers[~np.isnan(numbers)], -self._LARGEST, self._LARGEST)
        bins = np.floor(np.arcsinh(numbers * self._SCALE) * self._BINS_PER_UNIT).astype(np.int64)
        bins = np.minimum(bins + self._half, len(self.counts) - 1)
        self.counts += np.bincount(bins, minlength=len(self.counts))

    def quantile(self, share: float) -> float:
        """The number below which this share of the numbers lies, up to the width of a bin."""
        return float(np.interp(share, self._cumulated(), self.edges))

    def density(self, edges):
        """For each bin between these edges the share of the numbers in it, by its width."""
        return np.diff(np.interp(edges, self.edges, self._cumulated())) / np.diff(edges)

    def _cumulated(self):
        return np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()


def input_distributions(model: keras.layers.Layer, x, batch_size: int = 256):
    """How the inputs of every learnable activation are distributed, when the model runs on `x`.

    Args:
        model: a model or any other layer.
        x: what the model takes: an array, or a list or dictionary of arrays, samples first.
            A few hundred samples are enough for a picture.
        batch_size: how many samples run at once.

    Returns:
        A dictionary from the activation's name (see `named_activations`) to its `Distribution`.
        An activation whose inputs cannot be observed (see `record_inputs`) is missing.
    """
    names = {id(layer): name for name, layer in named_activations(model).items()}
    distributions = {}

    def count(layer, inputs):
        distributions.setdefault(names[id(layer)], Distribution()).add(inputs)

    record_inputs(model, x, count, batch_size)
    # One that saw nothing but NaN has no distribution.
    return {name: seen for name, seen in distributions.items() if seen.counts.any()}


def snapshot(
    model: keras.layers.Layer | Sequence[LearnableActivation],
) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of every learnable activation, to be given to `plot` later as `before`.

    Args:
        model: a model or any other layer; or a list of learnable activations.

    Returns:
        A dictionary from the activation's name (see `named_activations`) to its `parameters()`.
        One that has none before the model's first call on data is missing.
    """
    named = named_activations(model)
    return {name: layer.parameters() for name, layer in named.items() if layer.groups is not None}


def plot(
    model: keras.layers.Layer | Sequence[LearnableActivation] | dict[str, LearnableActivation],
    inputs=None,
    before: dict | None = None,
    *,
    distributions: dict[str, Distribution] | None = None,
    max_curves: int = 24,
    columns: int = 4,
):
    """Draws every learned function of a model, one panel each.

    Args:
        model: a built model or layer; or a list of learnable activations; or a dictionary of
            them by name, such as a part of `named_activations(model)`.
        inputs: data for the model. Behind every curve the distribution of the inputs that the
            activation gets on this data is drawn, and the curve is drawn where they are:
            between their 0.1 % and 99.9 % quantiles, and from -3 to 3 at least.
        before: a `snapshot` taken earlier. These functions are drawn in grey.
        distributions: what `input_distributions` gave for the model, instead of `inputs`.
        max_curves: draws at most this many groups of an activation, evenly chosen.
        columns: at most so many panels stand beside each other.

    Returns:
        A `matplotlib.figure.Figure`; save it with `figure.savefig("activations.png")`.

    Errors:
        ValueError: the model has no learnable activation, or one without parameters yet;
            `inputs` are given without a model or together with `distributions`;
            `before` is of an activation with other parameters.
        ImportError: matplotlib is not installed.

    Example:

    >>> before = snapshot(model)
    >>> model.fit(x_train, y_train)
    >>> plot(model, x_train[:500], before).savefig("activations.png")
    """
    Figure = _figure_class()
    is_model = isinstance(model, keras.layers.Layer)
    if inputs is not None and (not is_model or distributions is not None):
        raise ValueError(
            "plot runs a model on `inputs`, so it takes them with a model and without "
            f"`distributions`. Received: {model!r} with distributions={distributions}. "
            "For a list of activations give distributions=input_distributions(model, inputs)."
        )
    layers = model if isinstance(model, dict) else named_activations(model)
    if not layers:
        raise ValueError(f"plot found no learnable activation. Received: {model!r}")
    if inputs is not None:
        distributions = input_distributions(model, inputs)
    distributions, before = distributions or {}, before or {}

    rows = -(-len(layers) // columns)
    columns = -(-len(layers) // rows)  # as few as these rows need: 5 panels are 3 + 2, not 4 + 1
    width = _WIDTHS.get(columns, _WIDTH)
    height = rows * 0.8 * width / columns + 0.4  # the last is for the legend
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, layer) in zip(grid, layers.items(), strict=False):
        _draw(axes, name, layer, distributions.get(name), before.get(name), max_curves)
    for axes in grid[len(layers) :]:
        axes.set_axis_off()
    _add_legend(figure, grid[: len(layers)])
    return figure


def _figure_class():
    try:
        # Not pyplot, which keeps every figure and may want a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "keras_learnact.plotting draws with matplotlib, which is not installed. "
            "Get it with: pip install matplotlib"
        ) from error
    return Figure


def _draw(axes, name, layer, distribution, before, max_curves):
    parameters = layer.parameters()
    low, high = _RANGE
    if distribution is not None:
        low = min(low, distribution.quantile(0.001))
        high = max(high, distribution.quantile(0.999))
        edges = np.linspace(low, high, 81)
        density = distribution.density(edges)
        # Behind the curves, in heights of the panel: the density has no scale of its own.
        axes.stairs(
            0.6 * density / density.max(),
            edges,
            transform=axes.get_xaxis_transform(),
            fill=True,
            color=_INPUTS,
            alpha=0.35,
            linewidth=0,
            label="inputs",
        )
    count = min(layer.groups, max_curves)
    chosen = np.linspace(0, layer.groups - 1, count).astype(int)
    x = np.linspace(low, high, _POINTS)

    def curves(parameters):
        return layer.curve(x, {key: value[chosen] for key, value in parameters.items()})

    _draw_curves(axes, x, curves(parameters), "learned", color=_LEARNED)
    if before is not None:
        _check_same_parameters(name, before, parameters)
        # On top, as thin dashes: under a bundle of many curves it could not be seen.
        style = {"color": _START, "linestyle": (0, (4, 2))}
        _draw_curves(axes, x, curves(before), "before", **style)
    family = type(layer).__name__
    if layer.groups > 1:
        family += f", {layer.groups} groups"
    if count < layer.groups:
        family += f" ({count} drawn)"
    axes.set_title(_shortened(name, 34), fontsize=9, pad=14)
    axes.annotate(
        family,
        (0.5, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color="#555555",
    )
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0.5)
    axes.axvline(0, color="#999999", linewidth=0.6, zorder=0.5)
    axes.set_xlim(low, high)
    axes.locator_params(nbins=6)
    axes.tick_params(labelsize=7.5, color="#999999", length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")


def _check_same_parameters(name, before, parameters):
    shapes = [{key: value.shape for key, value in p.items()} for p in (before, parameters)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"plot(before=…) has other parameters for the activation {name!r} than the model. "
            f"Received: {shapes[0]}, wanted: {shapes[1]}. Take the snapshot of the same model."
        )


def _draw_curves(axes, x, curves, label, **style):
    curves = np.where(np.isfinite(curves), curves, np.nan)  # a gap, where there is no value
    style["linewidth"] = max(0.8, 1.9 - 0.1 * len(curves))
    style["alpha"] = max(0.55, 1.05 - 0.05 * len(curves))
    for i, y in enumerate(curves):
        axes.plot(x, y, label=label if i == 0 else None, **style)


def _add_legend(figure, panels):
    entries = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    labels = [label for label in ("learned", "before", "inputs") if label in entries]
    figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8.5,
    )


def _shortened(text, length):
    """The text with its middle left out, if it is too long: names differ at their ends."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2 - 1]}…{text[-(length // 2 - 1) :]}"
