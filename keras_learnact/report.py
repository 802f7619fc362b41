"""One HTML page on which learned functions are explored, epoch by epoch."""

import base64
import html
import json
import re
from pathlib import Path

import keras
import numpy as np

from keras_learnact import plotting
from keras_learnact.files import free, written
from keras_learnact.history import History, as_history
from keras_learnact.layers.base import groups_in

_PAGE = Path(__file__).with_name("report_page")

_POINTS = 241  # of a curve; the derivative is taken from their differences
_BINS = 80  # of a distribution
_GROUPS = 24  # of an activation are shown at most, evenly chosen
# So many curves make about 7 MB. A history with more is shown at fewer moments.
_CURVES, _FEWEST_MOMENTS = 5400, 9

# Okabe and Ito's palette, in the shades that can be read on white and on near-black. The last are
# for coefficients, which also differ by their dashes.
_LIGHT = {
    "learned": plotting._LEARNED,
    "start": plotting._START,
    "inputs": plotting._INPUTS,
    "lines": [plotting._LEARNED, "#D55E00", "#009E73", "#B8588F", "#A87000", "#2F87B8", "#555555"],
}
_DARK = {
    "learned": "#56B4E9",
    "start": "#A3A9B3",
    "inputs": plotting._INPUTS,
    "lines": ["#56B4E9", "#F0803C", "#19C296", "#DE8FBD", "#F0E442", "#8FB8FF", "#C5CAD3"],
}


def write_html(source, path, inputs=None, *, title: str | None = None, overwrite=False) -> None:
    """Writes one HTML page that shows every learned function, and needs nothing but a browser.

    A slider, or playing, goes through the moments of a training. For each activation there are
    its function with the start in grey and the distribution of its inputs behind, on demand the
    derivative, the formula, and the coefficients with their way through the epochs. The page
    holds all that it needs (plotly.js alone is 4.8 MB) and asks for nothing from the network.

    Of many groups of an activation 24, evenly chosen, are shown, and of a long history of many
    functions fewer moments, so that a page has 5 to 20 MB.

    Args:
        source: what is shown. The path of a run's folder or of its history file, which
            `keras_learnact.callbacks.ActivationHistory` writes, or a
            `keras_learnact.history.History`; or a built model, of which there is one moment only.
        path: of the file; its folder must exist. It is written beside and renamed.
        inputs: data for a model, an array or a list or dictionary of arrays, samples first; a few
            hundred samples. Only with a model: a history holds what was seen in training.
        title: of the page. Default: the name of the model or of the run's folder.
        overwrite: whether a file that exists may be replaced.

    Raises:
        TypeError: `source` is something else.
        ValueError: the model has no learnable activation, or one without parameters yet; the
            file is not a history; the folder holds several runs; the history has no moment;
            there are `inputs` without a model.
        FileNotFoundError: there is no such run, or no such folder for the page.
        FileExistsError: the file exists and `overwrite=False`.
        ImportError: plotly is not installed.

    Example:

    >>> model.fit(x, y, epochs=20, callbacks=[ActivationHistory("run/activations.npz", x[:500])])
    >>> keras_learnact.report.write_html("run", "activations.html")
    """
    plotly = _plotly()
    path = free(path, overwrite)
    history = as_history(source, inputs)
    if not history.moments:
        raise ValueError(f"A history with at least one moment is wanted. Received: {source!r}")
    data = {"title": title or _title(source), **_data(history)}
    parts = {
        "title": html.escape(data["title"], quote=False),
        "style": (_PAGE / "page.css").read_text("utf-8"),
        "data": _json({**data, "palettes": {"light": _LIGHT, "dark": _DARK}}),
        "plotly": plotly,
        "program": (_PAGE / "page.js").read_text("utf-8"),
    }
    # In one pass: what is put in is not searched for marks.
    template = (_PAGE / "page.html").read_text("utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)
    with written(path, "w") as file:
        file.write(page)


def _plotly():
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "keras_learnact.report needs plotly, whose JavaScript it puts into the page. Get it "
            "with: pip install 'keras_learnact[report]'"
        ) from error
    return get_plotlyjs()


def _title(source):
    if isinstance(source, keras.layers.Layer):
        return source.name
    if isinstance(source, History):
        return "Learned activations"
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.parent.name


def _data(history):
    """What the page's program gets."""
    groups = sum(
        min(_GROUPS, groups_in(values)) for values in history.moments[0].parameters.values()
    )
    count = max(_FEWEST_MOMENTS, _CURVES // groups)
    moments = [history.moments[i] for i in _spread(len(history.moments), count)]
    return {
        "moments": [{"epoch": moment.epoch, "metrics": moment.metrics} for moment in moments],
        "layers": [_layer(name, layer, moments) for name, layer in history.layers.items()],
    }


def _layer(name, layer, moments):
    parameters = [moment.parameters[name] for moment in moments]
    groups = groups_in(parameters[0])
    chosen = _spread(groups, _GROUPS)
    parameters = [{k: v[chosen] for k, v in values.items()} for values in parameters]
    # All moments as groups of one call: the points are few, and each call costs the same.
    together = {k: np.concatenate([values[k] for values in parameters]) for k in parameters[0]}
    distributions = [moment.distribution(name) for moment in moments]
    low, high = _range(distributions)
    x, edges = np.linspace(low, high, _POINTS), np.linspace(low, high, _BINS + 1)
    rows = len(moments) * len(chosen)
    curves = np.broadcast_to(layer.curve(x, together), (rows, len(x)))  # one, without parameters
    return {
        "name": name,
        "kind": type(layer).__name__,
        "groups": groups,
        "chosen": chosen.tolist(),
        "range": [low, high],
        "curves": _packed(curves, "<f4"),
        "densities": [d and _density(d, edges) for d in distributions],
        "coefficients": [
            f"{key}[{j}]" if values.shape[1] > 1 else key
            for key, values in parameters[0].items()
            for j in range(values.shape[1])
        ],
        "values": _packed(np.concatenate([np.empty((rows, 0)), *together.values()], axis=1), "<f4"),
        "formulas": [
            [layer.text_of_group(values, g) for g in range(len(chosen))] for values in parameters
        ],
    }


def _range(distributions):
    """From -3 to 3, and as far as the inputs go at any of these moments, but a diverged one."""
    low, high = plotting._RANGE
    ranges = np.array([(d.quantile(0.001), d.quantile(0.999)) for d in distributions if d])
    if len(ranges):
        widths = ranges[:, 1] - ranges[:, 0]
        low, high = (
            min(low, ranges[widths <= 10 * np.median(widths), 0].min()),
            max(high, ranges[widths <= 10 * np.median(widths), 1].max()),
        )
    return float(f"{low:.4g}"), float(f"{high:.4g}")


def _density(distribution, edges):
    """The heights of the bins: numbers from 0 to 65535 of the highest, and its height."""
    density = distribution.density(edges)
    largest = float(density.max())
    return {
        "largest": float(f"{largest:.4g}"),
        "shares": _packed(65535 * density / largest if largest else 0 * density, "<u2"),
    }


def _spread(count, most):
    """At most so many of the first `count` indices, evenly chosen, with the first and the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _packed(values, dtype):
    """An array as the base64 text of its bytes, which is shorter than digits."""
    with np.errstate(over="ignore"):  # beyond float32 is beyond any picture
        values = np.asarray(values).astype(dtype)
    return base64.b64encode(values.tobytes()).decode("ascii")


def _json(value):
    """JSON that ends no <script>, whatever the names in it are. NaN and infinities are null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
