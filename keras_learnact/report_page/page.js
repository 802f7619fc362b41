"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const last = page.moments.length - 1;
const hasTime = last > 0; // otherwise it is a model as it is now
const state = { moment: last, derivative: false, theme: document.documentElement.dataset.theme };

const element = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const spread = (low, high, count) =>
  Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
const numberOrGap = (y) => (Number.isFinite(y) ? y : null); // Plotly leaves a gap for null

// What report.py packed.

function unpacked(text, Numbers) {
  return new Numbers(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

class Layer {
  constructor(data) {
    // name, kind, groups, chosen (groups), range, densities, coefficients (names), formulas
    Object.assign(this, data);
    this.curves = unpacked(data.curves, Float32Array); // [moments, chosen groups, points]
    this.values = unpacked(data.values, Float32Array); // [moments, chosen groups, coefficients]
    this.points = this.curves.length / page.moments.length / this.chosen.length;
    this.x = spread(...this.range, this.points);
    this.group = 0; // of the chosen ones, the one whose numbers are shown
    this.extents = {};
  }

  row(array, width, moment, group) {
    const first = (moment * this.chosen.length + group) * width;
    return array.subarray(first, first + width);
  }

  curve(moment, group) {
    return Array.from(this.row(this.curves, this.points, moment, group), numberOrGap);
  }

  // The slope from the point before to the point after.
  derivative(moment, group) {
    const y = this.row(this.curves, this.points, moment, group);
    const step = this.x[1] - this.x[0];
    return this.x.map((_, i) => {
      const [before, after] = [Math.max(i - 1, 0), Math.min(i + 1, this.points - 1)];
      return numberOrGap((y[after] - y[before]) / ((after - before) * step));
    });
  }

  coefficientsAt(moment, group) {
    return this.row(this.values, this.coefficients.length, moment, group);
  }

  // The inputs: the height of each bin as a share of the highest, and as a density.
  density(moment) {
    const density = this.densities[moment];
    if (!density) return null;
    const packed = unpacked(density.shares, Uint16Array);
    const shares = Array.from(packed, (share) => share / 65535);
    return { shares, heights: shares.map((share) => share * density.largest) };
  }

  // One range for all moments, so that what moves is the curve. A pole must not flatten the rest.
  extent(kind) {
    this.extents[kind] ??= this.newExtent(kind);
    return this.extents[kind];
  }

  newExtent(kind) {
    const curves = page.moments.flatMap((_, m) => this.chosen.map((_, g) => this[kind](m, g)));
    const sorted = Float64Array.from(curves.flat().filter((y) => y !== null)).sort();
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
    let [low, high] = [at(0), at(1)];
    const usual = at(0.95) - at(0.05);
    if (usual > 0 && high - low > 20 * usual) [low, high] = [at(0.02), at(0.98)];
    const margin = 0.05 * (high - low) || 0.5;
    return [low - margin, high + margin];
  }
}

// Texts.

function digits(value) {
  if (!Number.isFinite(value)) return value === null ? "not finite" : String(value);
  return String(Number(value.toPrecision(4))).replaceAll("-", "−");
}

function epochText(moment) {
  const { epoch } = page.moments[moment];
  return epoch === 0 ? "before training" : `epoch ${epoch}`;
}

const escaped = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

// The formula as a layer writes it, with fractions, powers and signs as they are printed.
function typeset(text) {
  const inline = (part) =>
    escaped(part)
      .replace(/(\d)e([+-])0*(\d+)/g, (_, digit, sign, power) =>
        `${digit} · 10^${sign === "-" ? "-" : ""}${power}`)
      .replace(/\^(-?\d+)/g, "<sup>$1</sup>")
      .replace(/-/g, "−")
      .replace(/&#62;=/g, "≥")
      .replace(/&#60;=/g, "≤")
      .replace(/\bx\b/g, "<i>x</i>");
  const line = (part) => {
    const fraction = part.match(/^\((.*)\) \/ \((.*)\)$/);
    if (!fraction || part.split(") / (").length > 2) return `<span>${inline(part)}</span>`;
    const [above, below] = fraction.slice(1).map((side) => `<span>${inline(side)}</span>`);
    return `<span class="fraction">${above}${below}</span>`;
  };
  const [first, ...cases] = text.split("; ").map(line);
  const head = `<p><span><i>f</i>(<i>x</i>) =</span> ${first}</p>`;
  return head + cases.map((one) => `<p>${one}</p>`).join("");
}

// How plots look.

const isTouched = matchMedia("(pointer: coarse)").matches;
const title = (text) => ({ text, font: { size: 12 }, standoff: 4 });
const dashes = { solid: "", dash: "7 3", dot: "2 2", dashdot: "7 2 2 2" };

function axis() {
  return {
    gridcolor: style("--line"),
    linecolor: style("--line"),
    zerolinecolor: style("--quiet"),
    tickfont: { size: 11 },
    nticks: 8,
    automargin: false,
  };
}

function frame({ clientWidth, clientHeight }) {
  return {
    width: clientWidth,
    height: clientHeight,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "inherit", color: style("--quiet"), size: 12 },
    hoverlabel: {
      bgcolor: style("--surface"),
      bordercolor: style("--line"),
      font: { color: style("--text"), size: 12 },
    },
    showlegend: false,
    dragmode: isTouched ? false : "zoom", // a finger that moves scrolls the page
    uirevision: "keep", // the zoom stays when the epoch changes
  };
}

// Colour and dashes of the line of the j-th coefficient.
function lineOf(j) {
  const { lines } = page.palettes[state.theme];
  const names = Object.keys(dashes);
  const dash = names[Math.floor(j / lines.length) % names.length];
  return { color: lines[j % lines.length], dash, width: 1.8 };
}

function plot(where, traces, layout) {
  Plotly.react(where, traces, { ...frame(where), ...layout }, { displayModeBar: false });
}

// One activation: its card, and its entry in the list.

class Card {
  constructor(layer, number) {
    const copy = (id) => element(id).content.cloneNode(true).firstElementChild;
    this.layer = layer;
    this.card = copy("card");
    this.entry = copy("entry");
    this.isNear = false; // to what the window shows: only then is it drawn
    this.isDrawn = false; // as it is now
    const { name, kind, groups, chosen } = layer;
    this.card.id = `activation-${number}`;
    this.card.setAttribute("aria-label", name);
    this.part("h2").textContent = name;
    this.part(".kind").textContent =
      kind +
      (groups > 1 ? `, ${groups} groups` : "") +
      (groups > chosen.length ? ` (${chosen.length} shown)` : "");
    this.part(".curve").setAttribute("aria-label", `The function of ${name}`);
    this.part(".paths").setAttribute("aria-label", `The coefficients of ${name} over the epochs`);
    if (hasTime) this.part("h3").textContent = "Coefficients: change since the start";
    for (const part of [".legend .start", ".change", ".paths"]) this.part(part).hidden = !hasTime;
    this.part(".legend .others").hidden = chosen.length === 1;
    this.part(".legend .inputs").hidden = !layer.densities.some(Boolean);
    this.part(".group").hidden = groups === 1;
    const select = this.part("select");
    chosen.forEach((group, i) => select.add(new Option(group, i)));
    select.addEventListener("change", () => {
      layer.group = Number(select.value);
      this.draw();
    });
    this.entry.href = `#${this.card.id}`;
    this.entry.title = name;
    this.entry.querySelector("span").textContent = name;
  }

  part(selector) {
    return this.card.querySelector(selector);
  }

  draw() {
    this.drawEntry();
    this.isDrawn = this.isNear;
    if (!this.isNear) return;
    this.drawCurve();
    if (hasTime) this.drawPaths();
    this.writeNumbers();
  }

  drawEntry() {
    const { layer } = this;
    const [low, high] = layer.extent("curve");
    const points = (moment) =>
      layer.curve(moment, layer.group).flatMap((y, i) => {
        if (y === null || i % 4) return [];
        const height = Math.min(Math.max((high - y) / (high - low), 0), 1);
        return `${((48 * i) / (layer.points - 1)).toFixed(1)},${(2 + 24 * height).toFixed(1)}`;
      });
    const set = (part, moment) =>
      this.entry.querySelector(part).setAttribute("points", points(moment).join(" "));
    set(".learned", state.moment);
    if (hasTime) set(".start", 0);
  }

  drawCurve() {
    const { layer } = this;
    const panels = [["curve", "y", "f(x)"]];
    if (state.derivative) panels.push(["derivative", "y2", "f′(x)"]);
    const traces = [...this.inputs(), ...panels.flatMap((panel) => this.lines(...panel))];
    const split = state.derivative ? 0.4 : 0; // the derivative is below
    const yaxis = (kind, name, domain) =>
      ({ ...axis(), range: layer.extent(kind), domain, title: title(name) });
    plot(this.part(".curve"), traces, {
      margin: { l: 52, r: 8, t: 8, b: 30 },
      xaxis: {
        ...axis(),
        range: layer.range,
        anchor: panels.at(-1)[1],
        spikecolor: style("--quiet"),
        spikethickness: 1,
        spikedash: "solid",
        unifiedhovertitle: { text: "x = %{x:.4~g}" },
      },
      yaxis: yaxis("curve", "f(x)", [split && split + 0.05, 1]),
      ...(state.derivative && { yaxis2: yaxis("derivative", "f′(x)", [0, split - 0.05]) }),
      // The inputs have no scale of their own: the highest bin takes 60 % of the height.
      yaxis3: { overlaying: "y", range: [0, 1 / 0.6], visible: false, fixedrange: true },
      hovermode: "x unified",
      hoversubplots: "axis",
    });
  }

  inputs() {
    const density = this.layer.density(state.moment);
    if (!density) return [];
    return [{
      name: "density of inputs",
      mode: "lines",
      x: spread(...this.layer.range, density.shares.length + 1),
      y: [...density.shares, density.shares.at(-1)],
      customdata: [...density.heights, density.heights.at(-1)],
      yaxis: "y3",
      line: { shape: "hv", width: 0 },
      fill: "tozeroy",
      fillcolor: page.palettes[state.theme].inputs + "59", // of 255: 35 %
      hovertemplate: "%{customdata:.3~g}",
    }];
  }

  lines(kind, yaxis, name) {
    const { layer } = this;
    const colors = page.palettes[state.theme];
    const line = (name, moment, style) => ({
      name,
      mode: "lines",
      x: layer.x,
      y: layer[kind](moment, layer.group),
      yaxis,
      line: { simplify: false, ...style },
      hovertemplate: "%{y:.4~g}",
    });
    const others = layer.chosen.map((_, g) => g).filter((g) => g !== layer.group);
    const behind = {
      mode: "lines",
      x: others.flatMap(() => [...layer.x, null]),
      y: others.flatMap((g) => [...layer[kind](state.moment, g), null]),
      yaxis,
      line: { color: colors.learned, width: 1 },
      opacity: 0.35,
      hoverinfo: "skip",
    };
    const dashed = { color: colors.start, width: 1.5, dash: "4px,3px" };
    return [
      ...(others.length ? [behind] : []),
      ...(hasTime ? [line(`${name} at the start`, 0, dashed)] : []),
      line(name, state.moment, { color: colors.learned, width: 2.5 }),
    ];
  }

  drawPaths() {
    const { layer } = this;
    const epochs = page.moments.map((moment) => moment.epoch);
    const rows = epochs.map((_, m) => layer.coefficientsAt(m, layer.group));
    const traces = layer.coefficients.map((name, j) => ({
      name: escaped(name),
      mode: epochs.length > 12 ? "lines" : "lines+markers",
      x: epochs,
      y: rows.map((row) => numberOrGap(row[j] - rows[0][j])),
      customdata: rows.map((row) => row[j]),
      line: lineOf(j),
      marker: { size: 4 },
      hovertemplate: "%{customdata:.4~g} (%{y:+.3~g})",
    }));
    const now = epochs[state.moment];
    const line = { color: style("--accent"), width: 1.5 };
    plot(this.part(".paths"), traces, {
      margin: { l: 46, r: 8, t: 8, b: 34 },
      xaxis: { ...axis(), title: title("epoch"), tickformat: "d" },
      yaxis: axis(),
      hovermode: "closest",
      shapes: [{ type: "line", x0: now, x1: now, yref: "paper", y0: 0, y1: 1, line }],
    });
  }

  writeNumbers() {
    const { layer } = this;
    const now = layer.coefficientsAt(state.moment, layer.group);
    const start = layer.coefficientsAt(0, layer.group);
    const swatch = ({ color, dash }) =>
      `<svg viewBox="0 0 26 8" aria-hidden="true"><path d="M0 4h26" stroke="${color}"
        stroke-width="2" stroke-dasharray="${dashes[dash]}"/></svg>`;
    this.part("tbody").innerHTML = layer.coefficients.map((name, j) => {
      const sample = hasTime ? swatch(lineOf(j)) : "";
      const before = hasTime ? `<td>${digits(start[j])}</td>` : "";
      return `<tr><td>${sample}${escaped(name)}</td><td>${digits(now[j])}</td>${before}</tr>`;
    }).join("");
    this.part(".legend .learned").textContent = hasTime ? epochText(state.moment) : "now";
    this.part(".formula").innerHTML = typeset(layer.formulas[state.moment][layer.group]);
  }
}

// The page.

const cards = page.layers.map((data, number) => new Card(new Layer(data), number));
const drawAll = () => cards.forEach((card) => card.draw());
const cardOf = (part) => cards.find(({ card }) => card.contains(part));

function show(moment) {
  state.moment = moment;
  element("moment").value = moment;
  element("moment").setAttribute("aria-valuetext", epochText(moment));
  element("epoch").textContent = epochText(moment);
  element("metrics").innerHTML = Object.entries(page.moments[moment].metrics)
    .map(([name, value]) => `<span>${escaped(name)} <b>${digits(value)}</b></span>`)
    .join(" ");
  drawAll();
}

function setTheme(theme) {
  state.theme = theme;
  const root = document.documentElement;
  root.dataset.theme = theme;
  for (const name of ["learned", "start", "inputs"])
    root.style.setProperty(`--${name}`, page.palettes[theme][name]);
  const other = theme === "dark" ? "Light" : "Dark";
  element("theme").textContent = other;
  element("theme").setAttribute("aria-label", `${other} colours`);
  drawAll();
}

let playing = null;

function play(isOn) {
  clearInterval(playing);
  const step = () => (state.moment < last ? show(state.moment + 1) : play(false));
  // Some eight seconds in all, if that is neither a flicker nor a standstill.
  playing = isOn ? setInterval(step, Math.min(Math.max(8000 / last, 80), 500)) : null;
  element("play").textContent = isOn ? "❚❚ Pause" : "▶ Play";
}

element("play").addEventListener("click", () => {
  if (!playing && state.moment === last) show(0);
  play(!playing);
});
element("moment").addEventListener("input", (event) => {
  play(false);
  show(Number(event.target.value));
});
element("derivative").addEventListener("click", (event) => {
  state.derivative = !state.derivative;
  event.target.setAttribute("aria-pressed", state.derivative);
  document.body.classList.toggle("derivative", state.derivative);
  drawAll();
});
const opposite = () => (state.theme === "dark" ? "light" : "dark");
element("theme").addEventListener("click", () => setTheme(opposite()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) =>
  setTheme(matches ? "dark" : "light"));

// Paper has no window that things come near to.
addEventListener("beforeprint", () => {
  for (const card of cards) card.isNear = true;
  drawAll();
});

const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const card = cardOf(target);
    card.isNear = isIntersecting;
    if (isIntersecting && !card.isDrawn) card.draw();
  }
}, { rootMargin: "300px" });

const inSight = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const { entry } = cardOf(target);
    if (isIntersecting) entry.setAttribute("aria-current", "true");
    else entry.removeAttribute("aria-current");
  }
}, { rootMargin: "-40% 0px -55% 0px" });

const resized = new ResizeObserver((changes) => {
  for (const { target } of changes) cardOf(target).draw();
});

const header = document.querySelector("header"); // what is below must know how high it is
new ResizeObserver(() =>
  document.documentElement.style.setProperty("--header", `${header.offsetHeight}px`),
).observe(header);

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
element("summary").textContent =
  count(cards.length, "activation") + (hasTime ? `, ${count(last + 1, "moment")}` : "");
element("time").hidden = !hasTime;
element("moment").max = last;
const list = document.querySelector("nav");
list.hidden = cards.length === 1;
setTheme(state.theme);
play(false);
show(last);
for (const { card, entry } of cards) {
  element("activations").append(card);
  list.append(entry);
  near.observe(card);
  inSight.observe(card);
  resized.observe(card.querySelector(".curve"));
}
