import dataclasses
import json
import re
import sys

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact.history import History, Moment
from keras_learnact.observe import named_activations
from keras_learnact.report import write_html
from tests.browser import PHONE, chromium, opened
from tests.layers.contract_test import ACTIVATIONS, every_activation

pytestmark = pytest.mark.once

X = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def model_of(*activations):
    return keras.Sequential([keras.Input((4,)), *activations], name="small")


def training_of(*activations, epochs=3, inputs=X):
    """A history as of a training: in every epoch every parameter grows by 0.1."""
    model = model_of(*activations)
    start, moments = Moment.of(model, inputs), []
    for epoch in range(epochs + 1):
        parameters = keras.tree.map_structure(lambda p, e=epoch: p + 0.1 * e, start.parameters)
        metrics = {"loss": 2.0**-epoch, "accuracy": 1 - 2.0**-epoch} if epoch else {}
        moments.append(
            dataclasses.replace(start, epoch=epoch, parameters=parameters, metrics=metrics)
        )
    return History(moments, layers=named_activations(model))


def written(tmp_path, source, **arguments):
    write_html(source, tmp_path / "page.html", overwrite=True, **arguments)
    return f"file://{tmp_path}/page.html"


# What the page shows, asked of Plotly and not of the page's own program.


def traces(page, card=0, plot="curve"):
    """The drawn lines by name; the one of the other groups has the name ""."""
    page.wait_for_function(f"document.querySelectorAll('.{plot}')[{card}]?.data")
    drawn = page.evaluate(
        f"""document.querySelectorAll('.{plot}')[{card}].data.map(
            (t) => ({{...t, x: [...t.x], y: [...t.y]}}))"""
    )
    return {trace.get("name", ""): trace for trace in drawn}


def values(trace, key="y"):
    return np.array(trace[key], "float64")  # null is nan


def text(page, selector):
    return page.locator(selector).first.inner_text()


def set_moment(page, moment):
    page.locator("#moment").fill(str(moment))


def test_the_slider_moves_the_curve(browser, tmp_path):
    history = training_of(kla.APL(name="apl"))
    with opened(browser, written(tmp_path, history, title="A run")) as page:
        assert page.title() == "A run – learned activations"
        for moment in (3, 0, 2):
            set_moment(page, moment)
            drawn = traces(page)
            for name, m in (("f(x)", moment), ("f(x) at the start", 0)):
                parameters = history.moments[m].parameters["apl"]
                expected = history.layers["apl"].curve(drawn[name]["x"], parameters)[0]
                # Both are float32; x may differ in its last bit.
                np.testing.assert_allclose(values(drawn[name]), expected, rtol=1e-5, atol=1e-5)
            assert text(page, "#epoch") == ("before training", "", "epoch 2", "epoch 3")[moment]
        assert text(page, "#metrics").split() == ["loss", "0.25", "accuracy", "0.75"]


def test_the_slider_is_moved_by_keys_and_says_its_epoch(browser, tmp_path):
    with opened(browser, written(tmp_path, training_of(kla.Mixture()))) as page:
        slider = page.get_by_role("slider", name="Epoch")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext") == text(page, "#epoch") == "epoch 2"
        page.keyboard.press("Home")
        assert slider.get_attribute("aria-valuetext") == "before training"
        # Every control can be reached and has a name.
        for button in page.get_by_role("button").all():
            assert button.inner_text() or button.get_attribute("aria-label")


def test_playing_goes_from_the_start_to_the_end(browser, tmp_path):
    with opened(browser, written(tmp_path, training_of(kla.Mixture()))) as page:
        page.click("#play")
        assert text(page, "#epoch") == "before training" and "Pause" in text(page, "#play")
        page.wait_for_function("document.getElementById('play').textContent.includes('Play')")
        assert text(page, "#epoch") == "epoch 3"


def test_hovering_shows_values(browser, tmp_path):
    history = training_of(kla.SLAF(name="slaf", order=1, initial=(1.0, 2.0)), inputs=None)
    with opened(browser, written(tmp_path, history)) as page:
        traces(page)
        box = page.locator(".curve").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector(".hoverlayer .legend")
        shown = page.locator(".hoverlayer .legend").text_content().replace("−", "-")
        x, start, now = (float(n) for n in re.findall(r"-?\d+\.?\d*", re.sub(r"f\(x\)", "", shown)))
        # 1 + 2 x at the start, each coefficient 0.3 more now; four digits are shown.
        assert start == pytest.approx(1 + 2 * x, abs=2e-3)
        assert now == pytest.approx(1.3 + 2.3 * x, abs=2e-3)


def test_the_derivative_is_shown_on_demand(browser, tmp_path):
    history = training_of(kla.SLAF(name="slaf", order=2, initial=(0.0, 0.0, 1.0)))
    with opened(browser, written(tmp_path, history)) as page:
        assert "f′(x)" not in traces(page)
        page.click("#derivative")
        slope = traces(page)["f′(x) at the start"]
        # Of x², 2 x; a difference from both sides is exact for it, but for float32's digits over a
        # step of 0.025. The ends have one side only.
        np.testing.assert_allclose(values(slope)[1:-1], 2 * values(slope, "x")[1:-1], atol=1e-4)
        page.click("#derivative")
        assert "f′(x)" not in traces(page)


def test_the_inputs_are_behind_the_curve_and_have_their_share(browser, tmp_path):
    history = training_of(kla.Mixture(name="mix"), inputs=np.full((3, 4), 1.5, "float32"))
    with opened(browser, written(tmp_path, history)) as page:
        density = traces(page)["density of inputs"]
        edges, heights = values(density, "x"), values(density, "customdata")
        # All of them are between two edges, or three if their bin is cut.
        assert (np.diff(edges) * heights[:-1]).sum() == pytest.approx(1, rel=1e-3)
        filled = edges[:-1][heights[:-1] > 0]
        assert len(filled) <= 2 and abs(filled - 1.5).max() < 2 * np.diff(edges)[0]


def test_coefficients_are_listed_and_their_change_is_drawn(browser, tmp_path):
    history = training_of(kla.SLAF(name="slaf", order=1, initial=(1.0, 2.0)))
    with opened(browser, written(tmp_path, history)) as page:
        paths = traces(page, plot="paths")
        for j in (0, 1):
            path = paths[f"coefficients[{j}]"]
            assert path["x"] == [0, 1, 2, 3]
            np.testing.assert_allclose(path["y"], [0, 0.1, 0.2, 0.3], rtol=1e-5)
        rows = page.locator("tbody tr").all_inner_texts()
        assert [row.split() for row in rows] == [
            ["coefficients[0]", "1.3", "1"],
            ["coefficients[1]", "2.3", "2"],
        ]
        assert text(page, ".formula").split() == "f(x) = 1.3 + 2.3 x".split()


@every_activation
def test_a_page_of_every_activation_shows_its_formula_and_no_error(cls, browser, tmp_path):
    keras.utils.set_random_seed(0)
    layer = cls(name="act", sharing="channel")
    with opened(browser, written(tmp_path, model_of(layer), inputs=X)) as page:
        curve = traces(page)["f(x)"]
        expected = layer.curve(curve["x"])[0]
        np.testing.assert_allclose(values(curve), expected, rtol=1e-4, atol=1e-4)
        # As text it is the layer's own, but for how signs and fractions are printed.
        own = layer.formula().split("\n")[0].split(" = ")[1]
        shown = text(page, ".formula").split("=", 1)[1]
        assert re.findall(r"\d+\.\d+", shown) == re.findall(r"\d+\.\d+", own)
        assert "x" in shown  # those that start with whole numbers have no decimals
        # A single moment: nothing to slide through, no start, no change.
        assert not page.locator("#moment").is_visible()
        assert not page.locator(".paths").first.is_visible()
        assert "f(x) at the start" not in traces(page)


def test_a_fraction_a_power_and_a_case_are_printed_as_such(browser, tmp_path):
    pau = kla.PAU(degrees=(2, 1), initial=((0.0, -1e-7, 3.0), (2.0,)), name="pau")
    with opened(browser, written(tmp_path, model_of(pau, kla.SReLU(name="srelu")))) as page:
        traces(page, 1)
        formulas = page.locator(".formula")
        above, below = formulas.nth(0).locator(".fraction > span").all_inner_texts()
        assert above.split() == "−1 · 10−7 x + 3 x2".split()
        assert below.split() == "1 + 2 |x|".split()
        assert formulas.nth(0).locator("sup").all_inner_texts() == ["−7", "2"]
        lines = formulas.nth(1).locator("p").all_inner_texts()
        assert len(lines) == 3 and "≥" in lines[0] and "≤" in lines[1]


def test_of_many_groups_one_is_chosen_and_the_others_are_behind_it(browser, tmp_path):
    layer = kla.SLAF(order=1, initial=(0.0, 1.0), sharing="channel", name="wide")
    model = keras.Sequential([keras.Input((100,)), layer])
    layer.coefficients.assign(np.stack([np.arange(100.0), np.ones(100)], axis=1))
    with opened(browser, written(tmp_path, model)) as page:
        drawn = traces(page)
        assert text(page, ".kind") == "SLAF, 100 groups (24 shown)"
        assert len(values(drawn[""])) == 23 * (len(values(drawn["f(x)"])) + 1)
        options = page.locator("select option").all_inner_texts()
        assert len(options) == 24 and (options[0], options[-1]) == ("0", "99")
        page.get_by_label("group").select_option("99")
        curve = traces(page)["f(x)"]
        np.testing.assert_allclose(values(curve), 99 + values(curve, "x"), rtol=1e-6)
        assert text(page, ".formula").split() == "f(x) = 99 + 1 x".split()


def test_many_activations_are_listed_and_drawn_when_they_are_near(browser, tmp_path):
    layers = [kla.Mixture(name=f"activation_{i}") for i in range(52)]
    with opened(browser, written(tmp_path, training_of(*layers))) as page:
        traces(page)
        links = page.locator("nav a")
        assert links.all_inner_texts() == [layer.name for layer in layers]
        assert page.locator(".curve .main-svg").count() < 20  # a plot has three
        assert page.locator("nav polyline.learned[points]").count() == 52
        links.nth(51).click()
        drawn = traces(page, 51)
        set_moment(page, 0)
        # What was drawn before is drawn anew when it comes near again.
        links.nth(0).click()
        page.wait_for_function("document.querySelector('.curve').getBoundingClientRect().top > 0")
        page.wait_for_timeout(200)
        np.testing.assert_array_equal(traces(page)["f(x)"]["y"], drawn["f(x) at the start"]["y"])


def test_light_and_dark_follow_the_system_and_the_button(browser, tmp_path):
    url, pictures, backgrounds = written(tmp_path, training_of(kla.APL())), {}, {}

    def look(page):
        traces(page)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return page.screenshot(), sum(map(int, re.findall(r"\d+", color))) / 3

    for scheme in ("light", "dark"):
        with opened(browser, url, scheme=scheme) as page:
            pictures[scheme], backgrounds[scheme] = look(page)
            # The system may change its mind, and the user has the last word.
            for other in ({"light": "dark", "dark": "light"}[scheme], scheme):
                page.emulate_media(color_scheme=other)
                page.wait_for_function(f"document.documentElement.dataset.theme == '{other}'")
            page.click("#theme")
            assert (look(page)[1] < 128) == (scheme == "light")
    assert backgrounds["light"] > 215 and backgrounds["dark"] < 40  # of 255
    assert pictures["light"] != pictures["dark"]


def contrast(one, other):
    """The contrast of two colours "#rrggbb", as WCAG 2 defines it."""

    def luminance(color):
        parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_can_be_told_from_their_ground(browser, tmp_path, scheme):
    with opened(browser, written(tmp_path, training_of(kla.APL())), scheme=scheme) as page:
        colors = page.evaluate(
            """Object.fromEntries(["page", "surface", "text", "quiet", "accent", "on-accent"].map(
                (name) => [name, style("--" + name)]))"""
        )
        palette = page.evaluate(f"page.palettes.{scheme}")
    for ground in ("page", "surface"):
        for name in ("text", "quiet"):
            assert contrast(colors[name], colors[ground]) >= 4.5  # WCAG 2 AA, for text
    assert contrast(colors["on-accent"], colors["accent"]) >= 4.5
    for line in (palette["learned"], palette["start"], *palette["lines"]):
        assert contrast(line, colors["surface"]) >= 3  # WCAG 2 AA, for graphics


def test_nothing_is_wider_than_a_phone(browser, tmp_path):
    layers = [kla.PAU(name="an_activation_with_a_rather_long_name_" + 3 * "and_longer_")]
    layers += [kla.SReLU(sharing="channel"), kla.APL(num_hinges=9)]
    url = written(tmp_path, training_of(*layers), title="The_name_of_a_run_that_is_" + 60 * "o")
    with opened(browser, url, size=PHONE, has_touch=True, is_mobile=True) as page:
        for card in range(len(layers)):
            page.locator(".card").nth(card).scroll_into_view_if_needed()
            traces(page, card)
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
            plot, around = (
                page.locator(selector).nth(card).bounding_box()
                for selector in (".curve .svg-container", ".card")
            )
            assert plot["x"] + plot["width"] <= around["x"] + around["width"]
        page.click("#derivative")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_names_are_shown_as_they_are(browser, tmp_path):
    # Keras allows no "/" in a layer's name, a title may have one.
    name, title = "<!--<script>\"'&amp;{{plotly}}\\u003c", "</script></title><b>'\"&amp;{{style}}"
    with opened(browser, written(tmp_path, training_of(kla.APL(name=name)), title=title)) as page:
        traces(page)
        assert text(page, "h1") == title
        assert text(page, "h2") == name


def test_what_is_no_number_leaves_a_gap(browser, tmp_path):
    layers = [c(name=c.__name__) for c in ACTIVATIONS]
    history = training_of(*layers, inputs=X)
    for value, moment in ((np.nan, 1), (np.inf, 2)):
        old = history.moments[moment]
        broken = keras.tree.map_structure(lambda p, v=value: np.full_like(p, v), old.parameters)
        history.moments[moment] = dataclasses.replace(
            old, parameters=broken, metrics={"loss": value}
        )
    with opened(browser, written(tmp_path, history)) as page:
        for moment in (0, 1, 2):
            set_moment(page, moment)
            finite = np.isfinite(values(traces(page)["f(x)"]))
            assert finite.all() if moment == 0 else not finite.all()
        set_moment(page, 1)
        assert not np.isfinite(values(traces(page)["f(x)"])).any()


def test_a_diverged_moment_does_not_hide_the_others(browser, tmp_path):
    history = training_of(kla.APL(name="apl"))
    far = Moment.of(model_of(kla.APL(name="apl")), 1e30 * X)
    history.moments[3] = dataclasses.replace(history.moments[3], inputs=far.inputs)
    with opened(browser, written(tmp_path, history)) as page:
        low, high = traces(page)["f(x)"]["x"][0], traces(page)["f(x)"]["x"][-1]
        assert -5 < low <= -3 and 3 <= high < 5


def test_a_history_of_many_curves_is_shown_at_fewer_moments(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_learnact.report._CURVES", 20)
    history = training_of(kla.Mixture(name="a"), kla.Mixture(name="b"), epochs=40)
    write_html(history, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text("utf-8")
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', html)[1])
    # Ten moments of two functions.
    assert [m["epoch"] for m in data["moments"]] == [0, 4, 9, 13, 18, 22, 27, 31, 36, 40]


def test_a_page_names_the_model_or_the_run_and_is_about_as_large_as_plotly(tmp_path):
    run = tmp_path / "first_run"
    run.mkdir()
    model = model_of(kla.APL())
    History.of(model).save(run / "activations.npz")
    for source, title in (
        (model, "small"),
        (run, "first_run"),
        (str(run / "activations.npz"), "first_run"),
        (History.of(model), "Learned activations"),
    ):
        write_html(source, tmp_path / "page.html", overwrite=True)
        page = (tmp_path / "page.html").read_text("utf-8")
        assert f"<h1>{title}</h1>" in page
        assert len(page) < 5.5e6


def test_wrong_use_says_the_way_out_and_writes_nothing(tmp_path, monkeypatch):
    path, model = tmp_path / "page.html", model_of(kla.APL())
    for source, error, message in [
        (model_of(keras.layers.Dense(2)), ValueError, "no learnable activation"),
        (keras.Sequential([kla.PAU(sharing="unit")]), ValueError, "without parameters yet"),
        (3, TypeError, "Received: 3"),
        (tmp_path / "no_run", FileNotFoundError, "no_run"),
        (History([], configs={}), ValueError, "at least one moment"),
    ]:
        with pytest.raises(error, match=message):
            write_html(source, path)
    with pytest.raises(FileNotFoundError, match="Make the folder first"):
        write_html(model, tmp_path / "missing" / "page.html")
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        write_html(model, tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "plotly.offline", None)
        with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[report\]'"):
            write_html(model, path)
    assert not list(tmp_path.iterdir())

    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"page.html. Name another, or use overwrite=True"):
        write_html(model, path)
    assert path.read_text() == "mine"
    write_html(model, path, overwrite=True)
    assert path.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    "wrong",
    [
        "<script>throw Error('oh no')</script>",
        "<script>console.error('oh no')</script>",
        "<script src='missing.js'></script>",
        "<img src='https://example.com/picture.png'>",
        "<script>fetch('http://127.0.0.1:1/').catch(() => 0)</script>",
    ],
)
def test_the_browser_sees_every_error_and_every_call_to_the_network(browser, tmp_path, wrong):
    (tmp_path / "page.html").write_text(f"<title>t</title>{wrong}")
    with pytest.raises(AssertionError, match="oh no|ERR_FILE_NOT_FOUND|asks the network"):
        with opened(browser, f"file://{tmp_path}/page.html") as page:
            page.wait_for_timeout(100)
