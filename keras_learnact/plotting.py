"""Pictures of learned functions, drawn by matplotlib without a display."""

import contextlib
import io
import itertools
import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_learnact.files import free, written
from keras_learnact.layers.base import LearnableActivation, groups_in
from keras_learnact.observe import named_activations, record_inputs

# Okabe and Ito's palette, which all forms of colour blindness tell apart.
_LEARNED, _START, _INPUTS = "#0072B2", "#666666", "#E69F00"
_AXES, _NOTES = "#999999", "#555555"

_RANGE = -3.0, 3.0  # shown at least
_POINTS = 601

# Inches, 100 pixels each. The width of a column, in a figure with so many columns.
_COLUMN, _NARROW = {1: 6.0, 2: 4.5, 3: 4.0, 4: 3.0}, 2.4
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.52, 0.2, 0.46, 0.26  # around the axes of a panel, for its texts
_HEADING, _LEGEND = 0.36, 0.36


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


def first_inputs(data, count: int = 256):
    """The inputs of the first samples of a data set, as `fit` takes it.

    Args:
        data: batches that are `x`, `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, a generator. Or the inputs
            themselves, an array or a list or dictionary of arrays; then these come back.
        count: so many samples of a data set are taken, and no more batches than hold them. A
            generator moves on by these batches.

    Returns:
        A NumPy array, or a list or dictionary of them, samples first.

    Raises:
        ValueError: there are no samples.
    """
    if hasattr(data, "shape") or isinstance(data, (list, tuple, dict)):
        if not all(map(len, keras.tree.flatten(data))):
            raise ValueError(f"Inputs with samples are wanted. Received: none, in {data!r}")
        return data
    batches, found = [], 0
    for batch in data:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        batches.append(keras.tree.map_structure(lambda array: np.asarray(array)[:count], x))
        found += len(keras.tree.flatten(batches[-1])[0])
        if found >= count:
            break
    if not found:
        raise ValueError(
            f"Data with samples are wanted. Received: {data!r}, which gave none. A generator gives "
            "its batches once: make a new one."
        )
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[:count], *batches)


def input_distributions(model: keras.layers.Layer, x, batch_size: int = 256):
    """How the inputs of every learnable activation are distributed, when the model runs on `x`.

    Args:
        model: a model or any other layer.
        x: what the model takes: an array, or a list or dictionary of arrays, samples first. A few
            hundred samples are enough for a picture. Or a data set, see `first_inputs`.
        batch_size: how many samples run at once.

    Returns:
        A dictionary from the activation's name (see `named_activations`) to its `Distribution`.
        An activation whose inputs cannot be observed (see `record_inputs`) is missing.
    """
    names = {id(layer): name for name, layer in named_activations(model).items()}
    distributions = {}

    def count(layer, inputs):
        distributions.setdefault(names[id(layer)], Distribution()).add(inputs)

    record_inputs(model, first_inputs(x), count, batch_size)
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
    derivative: bool = False,
    max_curves: int = 24,
    columns: int | None = None,
):
    """Draws every learned function of a model, one panel each.

    Args:
        model: a built model or layer; or a list of learnable activations; or a dictionary of
            them by name, such as a part of `named_activations(model)`.
        inputs: data for the model, see `first_inputs`. Behind every curve the distribution of the
            inputs that the activation gets on this data is drawn, and the curve is drawn where
            they are: between their 0.1 % and 99.9 % quantiles, and from -3 to 3 at least.
        before: a `snapshot` taken earlier. These functions are drawn in grey.
        distributions: what `input_distributions` gave for the model, instead of `inputs`.
        derivative: whether the derivative is drawn too, below each function: the quotient of
            differences between neighbouring points of the curve, a 600th of the panel apart.
        max_curves: draws at most this many groups of an activation, evenly chosen.
        columns: at most so many panels stand beside each other. Default: 4, and as many as there
            are rows where there are more than 16.

    Returns:
        A `matplotlib.figure.Figure`, which notebooks show; save it with
        `figure.savefig("activations.png")`.

    Raises:
        ValueError: the model has no learnable activation, or one without parameters yet;
            `inputs` are given without a model or together with `distributions`;
            `before` is of an activation with other parameters; `max_curves` or `columns` is no
            whole number from 1.
        ImportError: matplotlib is not installed.

    Example:

    >>> before = snapshot(model)
    >>> model.fit(x_train, y_train)
    >>> plot(model, x_train[:500], before).savefig("activations.png")
    """
    _figure_class()  # before the model is run
    _check_most(max_curves=max_curves, columns=columns)
    is_model = isinstance(model, keras.layers.Layer)
    if inputs is not None and (not is_model or distributions is not None):
        raise ValueError(
            "plot runs a model on `inputs`, so it takes them with a model and without "
            f"`distributions`. Received: {model!r} with distributions={distributions}. "
            "For a list of activations give distributions=input_distributions(model, inputs)."
        )
    layers = model if isinstance(model, dict) else named_activations(model)
    if not layers:
        raise ValueError(
            "plot found no learnable activation that has a curve, as all have but MetaACONC. "
            f"Received: {model!r}"
        )
    unknown = [name for name in before or () if name not in named_activations(model)]
    if unknown and is_model:
        raise ValueError(
            f"plot(before=…) has {', '.join(map(repr, unknown))}, and the model has the "
            f"activations {', '.join(map(repr, layers))}. Take the snapshot of the same model."
        )
    if inputs is not None:
        distributions = input_distributions(model, inputs)
    return draw(panels(layers, before, distributions, max_curves), derivative, columns)


class Panel(NamedTuple):
    """What `draw` shows of one activation.

    Args:
        name, family: the title and the line below it.
        x: array [points], evenly spaced.
        learned: array [curves, points].
        before: array [curves, points], or None.
        distribution: the `Distribution` of the inputs, or None.
        heights: the smallest and the largest value and the smallest and the largest derivative
            that find room; None, where that depends on these curves.
    """

    name: str
    family: str
    x: np.ndarray
    learned: np.ndarray
    before: np.ndarray | None = None
    distribution: Distribution | None = None
    heights: tuple[float, float, float, float] | None = None


def panels(
    layers: dict[str, LearnableActivation],
    before: dict | None = None,
    distributions: dict[str, Distribution] | None = None,
    max_curves: int = 24,
) -> list[Panel]:
    """The curves of `plot` without the picture, for one who draws them more than once.

    Args:
        layers: learnable activations by name.
        before, distributions, max_curves: as for `plot`.
    """
    distributions, before = distributions or {}, before or {}
    made = []
    for name, layer in layers.items():
        chosen, family = _chosen(layer, max_curves)
        parameters, start = layer.parameters(), before.get(name)
        if start is not None:
            _check_same_parameters(name, start, parameters)
        seen = distributions.get(name)
        x = np.linspace(*_range([] if seen is None else [seen]), _POINTS)
        sets = [parameters] if start is None else [parameters, start]
        made.append(Panel(name, family, x, *_pair(_curves(layer, x, sets, chosen)), seen))
    return made


def draw(
    panels: Sequence[Panel],
    derivative: bool = False,
    columns: int | None = None,
    heading: str | None = None,
    width: float | None = None,
):
    """Panels as a `matplotlib.figure.Figure`, which holds nothing of the activations.

    Args:
        panels: at least one.
        derivative, columns: as for `plot`.
        heading: a line above all panels.
        width: inches, of 100 pixels, of each column; less than 2.4 leave no room for the texts.
            Default: 6 for one column and less for several.
    """
    columns = columns or max(4, math.ceil(math.sqrt(len(panels))))
    rows = -(-len(panels) // columns)
    columns = -(-len(panels) // rows)  # as few as these rows need: 5 panels are 3 + 2, not 4 + 1
    width = width or _COLUMN.get(columns, _NARROW)
    height = (1.25 if derivative else 0.8) * width
    above = _HEADING if heading else 0.0
    # The places are computed and not fitted to the texts: that would take most of the time, and
    # the frames of a film would not stand still.
    inches = columns * width, rows * height + _LEGEND + above
    figure = _figure_class()(figsize=inches, dpi=100)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        left = column * width + _LEFT
        top = inches[1] - above - row * height - _TOP
        size = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
        _draw_panel(figure, panel, derivative, left, top, *size)
    if heading:
        middle = 1 - above / 2 / inches[1]
        figure.text(0.5, middle, heading, ha="center", va="center", fontsize=11)
    _add_legend(figure, inches)
    return figure


def pixels(figure):
    """A figure as an array [height, width, 3] of bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def animate(
    source,
    path,
    *,
    fps: float = 8,
    derivative: bool = False,
    max_curves: int = 24,
    columns: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a film of how the functions were learned, one frame for each moment of a history.

    The axes stay as they are from the first frame to the last, which stands still for a second.
    In grey are the functions of the first moment, behind the curves is the distribution of the
    inputs, where the history has it.

    Args:
        source: a `keras_learnact.history.History`, the path of a file that holds one, or the
            folder of a run with such a file in it: what
            `keras_learnact.callbacks.ActivationHistory` wrote.
        path: of the film; ".gif" at its end makes an animated GIF, ".mp4" a H.264 video. It is
            written beside and renamed.
        fps: frames in a second, up to 50, the most that browsers show of a GIF.
        derivative: as for `plot`.
        max_curves: as for `plot`.
        columns: as for `plot`.
        overwrite: whether a file that exists may be replaced.

    Raises:
        FileExistsError: the file exists and `overwrite=False`.
        ValueError: another suffix or number of frames, curves or columns; a history without moments
            or activations.
        ImportError: matplotlib, Pillow (GIF) or imageio-ffmpeg (MP4) is not installed.
        FileNotFoundError: the folder of `path` does not exist; there is no history.
        RuntimeError: ffmpeg makes no H.264 video; the message is its own.

    Example:

    >>> model.fit(x, y, epochs=20, callbacks=[ActivationHistory("activations.npz", x[:500])])
    >>> animate("activations.npz", "activations.gif")
    """
    from keras_learnact.history import as_history  # which imports this module

    write = {".gif": _write_gif, ".mp4": _write_mp4}.get(Path(path).suffix.lower())
    if write is None:
        raise ValueError(
            f'animate writes files that end in ".gif" or ".mp4". Received: path={str(path)!r}'
        )
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= 50:
        raise ValueError(
            f"animate: `fps` must be a number above 0, up to 50. Received: fps={fps!r}"
        )
    _check_most(max_curves=max_curves, columns=columns)
    _figure_class()
    path = free(path, overwrite)
    history = as_history(source)
    if not history.moments or not history.layers:
        raise ValueError(
            "animate needs a history with at least one moment and one learnable activation. "
            f"Received: {len(history.moments)} moments of {len(history.layers)} activations."
        )
    moments = zip(history.epochs, panels_of_moments(history, max_curves), strict=True)
    frames = (
        pixels(draw(panels, derivative, columns, f"epoch {epoch} of {history.epochs[-1]}"))
        for epoch, panels in moments
    )
    with written(path) as file:
        write(file, _with_a_long_end(frames, round(fps)), fps)


def panels_of_moments(history, max_curves):
    """For each moment its `Panel`s, with axes that suit all of them.

    Args:
        history: a `keras_learnact.history.History`.
        max_curves: as for `plot`.

    Returns:
        An iterator over tuples with a `Panel` for each activation.
    """
    moments, films = history.moments, []
    distributions = [moment.distributions for moment in moments]
    for name, layer in history.layers.items():
        seen = [d.get(name) for d in distributions]
        x = np.linspace(*_range([d for d in seen if d is not None]), _POINTS)
        chosen, family = _chosen(layer, max_curves, moments[0].parameters[name])
        # In one call: most of a call's time does not depend on the number of curves.
        curves = _curves(layer, x, [moment.parameters[name] for moment in moments], chosen)
        heights = *_extremes(curves), *_extremes(_slopes(x, curves)[1])
        films.append(
            [
                Panel(name, family, x, y, curves[0], distribution, heights)
                for y, distribution in zip(curves, seen, strict=True)
            ]
        )
    return zip(*films, strict=True)


def _with_a_long_end(frames, count):
    for frame in frames:
        yield frame
    yield from itertools.repeat(frame, count)


def _write_gif(file, frames, fps):
    try:
        from PIL import Image
    except ImportError as error:
        raise _missing("animate", "writes a GIF with Pillow") from error
    # One palette for all frames, without dithering: what does not move does not flicker.
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    frames = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    next(frames).save(
        file,
        "GIF",
        save_all=True,
        append_images=frames,
        duration=1000 / fps,
        loop=0,
        optimize=False,
    )


def _palette():
    """The colours of a figure, 108 triples of bytes: everything drawn, and its soft edges."""
    from matplotlib.colors import to_rgb

    white, inputs = np.ones(3), 0.65 + 0.35 * np.array(to_rgb(_INPUTS))
    drawn = [np.array(to_rgb(colour)) for colour in (_LEARNED, _START, _AXES, "black")]
    pairs = [(white, inputs)] + [(ground, c) for ground in (white, inputs) for c in drawn]
    colours = [a + (b - a) * t for a, b in pairs for t in np.linspace(0, 1, 12)]
    return np.round(255 * np.array(colours)).astype(int).ravel().tolist()


def _write_mp4(file, frames, fps):
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise _missing("animate", "writes an MP4 with imageio-ffmpeg") from error
    # The format halves the resolution of colours, so it takes even numbers of pixels only.
    frames = (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames)
    first = next(frames)
    height, width, _ = first.shape
    # In a folder of its own: ffmpeg goes back in its file, and wants to see the suffix.
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        # The package's own `write_frames` forks in a way that may block under JAX's threads.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", str(fps), "-i", "-", "-c:v", "libx264", "-crf", "18"]
        command += ["-pix_fmt", "yuv420p", str(film)]  # what every browser and phone plays
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
            with contextlib.suppress(BrokenPipeError):  # it ended, and says why
                for frame in itertools.chain([first], frames):
                    ffmpeg.stdin.write(frame.tobytes())
            _, said = ffmpeg.communicate()
        if ffmpeg.returncode:
            raise RuntimeError(
                f"animate: ffmpeg made no film. It said: {said.decode(errors='replace').strip()} "
                "A GIF needs no ffmpeg."
            )
        file.write(film.read_bytes())


def _missing(who, what):
    return ImportError(
        f"{who} {what}, which is not installed. Get it with: pip install 'keras_learnact[plot]'"
    )


def _figure_class():
    try:
        # Not pyplot, which keeps every figure and may want a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _missing("keras_learnact.plotting", "draws with matplotlib") from error

    class NotebookFigure(Figure):
        """A notebook shows it as the value of a cell: it knows only pyplot's figures."""

        def _repr_png_(self):
            png = io.BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    return NotebookFigure


def _check_most(**arguments):
    for name, most in arguments.items():
        whole = isinstance(most, int) and not isinstance(most, bool)
        if not (whole and most >= 1) and not (name == "columns" and most is None):
            raise ValueError(f"`{name}` must be a whole number from 1. Received: {name}={most!r}")


def _chosen(layer, max_curves, parameters=None):
    """Which groups are drawn, and what stands below the title."""
    parameters = layer.parameters() if parameters is None else parameters
    groups = groups_in(parameters)
    count = min(groups, max_curves)
    family = type(layer).__name__
    if groups > 1:
        family += f", {groups} groups"
    if count < groups:
        family += f" ({count} drawn)"
    return np.linspace(0, groups - 1, count).astype(int), family


def _check_same_parameters(name, before, parameters):
    shapes = [{key: value.shape for key, value in p.items()} for p in (before, parameters)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"plot(before=…) has other parameters for the activation {name!r} than the model. "
            f"Received: {shapes[0]}, wanted: {shapes[1]}. Take the snapshot of the same model."
        )


def _range(distributions: list[Distribution]):
    """Where the functions are drawn, whose inputs were distributed so at several moments."""
    low, high = _RANGE
    ranges = [(min(low, d.quantile(0.001)), max(high, d.quantile(0.999))) for d in distributions]
    return _common(ranges) if ranges else _RANGE


def _common(ranges):
    """The range of all ranges but of those ten times as wide as most: a training that diverges
    at its end does not hide what was before."""
    ranges = np.array(ranges)
    widths = ranges[:, 1] - ranges[:, 0]
    if widths.any():
        ranges = ranges[widths <= 10 * np.median(widths[widths > 0])]
    return ranges[:, 0].min(), ranges[:, 1].max()


def _curves(layer, x, sets, chosen):
    """The curves of the chosen groups with each of these sets of parameters: [sets, curves, x]."""
    together = {
        key: np.concatenate([parameters[key][chosen] for parameters in sets]) for key in sets[0]
    }
    curves = layer.curve(x, together).astype("float64").reshape(-1, len(chosen), len(x))
    curves = np.broadcast_to(curves, (len(sets), *curves.shape[1:]))  # one, without parameters
    return np.where(np.isfinite(curves), curves, np.nan)  # a gap, where there is no value


def _pair(curves):
    return (*curves, None)[:2]


def _slopes(x, curves):
    """The derivative between the points of curves: where, and its values."""
    return (x[1:] + x[:-1]) / 2, np.diff(curves) / np.diff(x)


def _extremes(moments):
    """The smallest and the largest value that find room, of an array [moments, curves, points]."""
    values = [values[np.isfinite(values)] for values in moments]
    ranges = [(v.min(), v.max()) for v in values if v.size]
    return _common(ranges) if ranges else (0.0, 1.0)


def _draw_panel(figure, panel, derivative, left, top, width, height):
    """Draws into this rectangle (in inches, from the figure's lower left corner)."""
    x, distribution = panel.x, panel.distribution
    gap = 0.1
    upper = 0.6 * (height - gap) if derivative else height
    axes = _axes(figure, left, top - upper, width, upper)
    if distribution is not None:
        edges = np.linspace(x[0], x[-1], 81)
        density = distribution.density(edges)
        # Behind the curves, in heights of the panel: the density has no scale of its own.
        axes.stairs(
            0.6 * density / (density.max() or 1.0),
            edges,
            transform=axes.get_xaxis_transform(),
            fill=True,
            color=_INPUTS,
            alpha=0.35,
            linewidth=0,
            label="inputs",
        )
    _draw_curves(axes, x, panel.learned, panel.before)
    axes.set_title(_shortened(panel.name, int(12 * width)), fontsize=9, pad=14)
    axes.annotate(
        panel.family,
        (0.5, 1.0),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color=_NOTES,
    )
    if derivative:
        axes.tick_params(labelbottom=False)
        below = _axes(figure, left, top - height, width, height - gap - upper)
        points, slopes = _slopes(x, panel.learned)
        before = None if panel.before is None else _slopes(x, panel.before)[1]
        _draw_curves(below, points, slopes, before)
        below.set_xlim(x[0], x[-1])
        below.annotate(
            "derivative",
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
            color=_NOTES,
        )
    axes.set_xlim(x[0], x[-1])
    if panel.heights is not None:
        low, high, *slopes = panel.heights
        _set_heights(axes, low, high)
        if derivative:
            _set_heights(below, *slopes)


def _axes(figure, left, bottom, width, height):
    inches = figure.get_size_inches()
    axes = figure.add_axes(
        (left / inches[0], bottom / inches[1], width / inches[0], height / inches[1])
    )
    axes.axhline(0, color=_AXES, linewidth=0.6, zorder=0.5)
    axes.axvline(0, color=_AXES, linewidth=0.6, zorder=0.5)
    for axis, size in ((axes.xaxis, width), (axes.yaxis, 1.3 * height)):
        axis.get_major_locator().set_params(nbins=min(6, int(size / 0.42)))
        axis.set_major_formatter(_tick_text)
    axes.tick_params(labelsize=7.5, color=_AXES, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_AXES)
    return axes


def _tick_text(number, position):
    """As short as the room beside the axes: 25, 0.5, −2.5e6; no power of ten stands apart."""
    text = f"{number:.5g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    return text.replace("-", "−")


def _set_heights(axes, low, high):
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _draw_curves(axes, x, learned, before):
    style = {
        "linewidth": max(0.8, 1.9 - 0.1 * len(learned)),
        "alpha": max(0.55, 1.05 - 0.05 * len(learned)),
    }
    axes.plot(x, learned.T, color=_LEARNED, **style)
    axes.lines[-1].set_label("learned")
    if before is not None:
        # On top, as thin dashes: under a bundle of many curves it could not be seen.
        axes.plot(x, before.T, color=_START, linestyle=(0, (4, 2)), **style)
        axes.lines[-1].set_label("before")


def _add_legend(figure, inches):
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    labels = [label for label in ("learned", "before", "inputs") if label in entries]
    figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.2,
        ncols=3,
        frameon=False,
        fontsize=8.5,
    )


def _shortened(text, length):
    """The text with its middle left out, if it is too long: names differ at their ends."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2 - 1]}…{text[-(length // 2 - 1) :]}"
