"use strict";
// The page's behaviour: plots are drawn when they come near the window, a point or a name opens the trial's card,
// the table of trials sorts and turns pages. All data is in the page; nothing is fetched.

const { pool, figures, dark: DARK, studies } = JSON.parse(document.getElementById("data").textContent);
const TYPES = { f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
const isDark = matchMedia("(prefers-color-scheme: dark)");
const PAGE = 25;
let printing = false;

// Columns

const unpacked = new Map();
function column(packed) {
  if (!unpacked.has(packed)) {
    const bytes = Uint8Array.from(atob(packed.bdata), (character) => character.charCodeAt(0));
    unpacked.set(packed, new TYPES[packed.dtype](bytes.buffer));
  }
  return unpacked.get(packed);
}
const word = (words, row) => words.words[column(words.codes)[row]];

let rows = 0;
for (const study of studies) {
  study.first = rows;
  study.size = column(study.trial).length;
  study.onFront = new Set(study.front);
  rows += study.size;
}
const ofRow = (row) => studies.find((study) => row < study.first + study.size);
const isBaseline = (study, i) => i < study.baselines.length;
const nameOf = (study, i) =>
  isBaseline(study, i) ? study.baselines[i] : "trial_" + String(column(study.trial)[i]).padStart(4, "0");

// Numbers

const DIGITS = { top1: 2, top5: 2, loss: 3, latency_ms: 3, total_latency_ms: 3, latency_ratio: 3,
  total_latency_ratio: 3, throughput_fps: 0, parameters: 0, macs: 1 };
const LABELS = { top1: "val top1 (%)", top5: "val top5 (%)", loss: "val loss", latency_ms: "latency (ms)",
  total_latency_ms: "total latency (ms)", throughput_fps: "throughput (fps)", macs: "MACs (millions)" };
const label = (metric) => LABELS[metric] ?? metric;
function show(value, digits) {
  if (value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
const figure = (study, metrics, metric, i) =>
  metrics[metric] ? mark(study, metrics, metric, i) + show(column(metrics[metric])[i] / (metric === "macs" ? 1e6 : 1), DIGITS[metric] ?? 3) : "–";
const valueOf = (study, name, i) => {
  const value = column(study.parameters[name])[i];
  return Number.isInteger(value) ? show(value, 0) : Math.abs(value) < 0.1 ? `${Number(value.toPrecision(3))}` : show(value, 3);
};
// What stands before a latency of a measurement whose time was over before its ratios were known.
function mark(study, metrics, metric, i) {
  if (!metric.includes("latency") || Number.isNaN(column(metrics[metric])[i])) return "";
  return study.imprecise[metrics === study.pruned ? "pruned" : "metrics"].includes(i) ? "~" : "";
}
function interval(study, metric, i) {
  const [low, high] = ["low", "high"].map((bound) => column(study.intervals[metric][bound])[i]);
  const digits = metric !== "top1" ? 3 : high - low >= 0.1 ? 1 : 2;
  return Number.isNaN(low) ? "" : `[${[low, high].map((bound) => show(bound, digits)).join(", ")}]`;
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Plots

const hasWebGl = Boolean(document.createElement("canvas").getContext("webgl"));

/** Returns a figure's part with its columns in place, in the colours of the reader's scheme. */
function built(part, darkly) {
  if (typeof part === "string") {
    if (part === "scattergl" && !hasWebGl) return "scatter";
    return darkly ? (DARK[part] ?? part) : part;
  }
  if (Array.isArray(part)) return part.map((item) => built(item, darkly));
  if (part && typeof part === "object") {
    if ("$" in part) return column(pool[part.$]);
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, built(value, darkly)]));
  }
  return part;
}

async function draw(plot) {
  const { data, layout } = built(figures[plot.dataset.figure], isDark.matches && !printing);
  if (!hasWebGl && data.some((trace) => trace.type === "parcoords")) {
    plot.replaceChildren(make("p", { className: "needs", textContent: "This plot needs WebGL, which this browser has not." }));
    return;
  }
  const isNew = !plot.dataset.drawn;
  plot.dataset.drawn = "yes";
  await Plotly.react(plot, data, layout, { responsive: true, displaylogo: false,
    modeBarButtons: [data[0]?.type === "parcoords" ? ["toImage"] : ["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
  if (!isNew) return;
  plot.on("plotly_click", (event) => { const row = rowAt(event); if (row !== undefined) openCard(row); });
  plot.on("plotly_hover", (event) => { const row = rowAt(event); if (row !== undefined) openTip(row, event.event); });
  plot.on("plotly_unhover", () => { tip.hidden = true; });
}

/** Returns the row of the trial under the pointer. Only points of trials leave the hover text to us. */
function rowAt({ points: [point] }) {
  const { hoverinfo, customdata } = point.data;
  return hoverinfo === "none" && customdata ? customdata[point.pointNumber] : undefined;
}

const plots = [...document.querySelectorAll(".plot")];
const drawn = () => plots.filter((plot) => plot.dataset.drawn);
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) { near.unobserve(target); draw(target); }
  }
}, { rootMargin: "300px" });
plots.forEach((plot) => near.observe(plot));
isDark.addEventListener("change", () => drawn().forEach(draw));
addEventListener("beforeprint", () => { printing = true; plots.forEach(draw); });
addEventListener("afterprint", () => { printing = false; drawn().forEach(draw); });

// The short card under the pointer

const tip = make("div", { id: "tip", hidden: true });
document.body.append(tip);
function openTip(row, { clientX, clientY }) {
  const study = ofRow(row), i = row - study.first;
  const lines = [
    word(study.ending, i),
    `val top1 ${figure(study, study.metrics, "top1", i)} %`,
    `latency_ratio ${figure(study, study.metrics, "latency_ratio", i)} ${interval(study, "latency_ratio", i)}`,
    `latency ${figure(study, study.metrics, "latency_ms", i)}${study.reference.latency_ms ? " of " + figure(study, study.reference, "latency_ms", i) : ""} ms`,
    Object.keys(study.parameters).map((name) => `${study.short[name]} ${valueOf(study, name, i)}`).join(", "),
  ];
  tip.replaceChildren(make("b", { textContent: nameOf(study, i) }), ...lines.map((textContent) => make("span", { textContent })));
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(clientY + 14, innerHeight - tip.offsetHeight - 8)) + "px";
}
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// The card

const dialog = make("dialog");
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.body.append(dialog);

function table(head, body) {
  const row = (tag, cells) => make("tr", {}, ...cells.map((textContent) => make(tag, { textContent })));
  return make("div", { className: "scroll" }, make("table", {},
    make("thead", {}, row("th", head)), make("tbody", {}, ...body.map((cells) => row("td", cells)))));
}

function openCard(row) {
  tip.hidden = true;
  const study = ofRow(row), i = row - study.first, name = nameOf(study, i);
  const close = make("button", { textContent: "Close" });
  close.addEventListener("click", () => dialog.close());
  const parts = [make("header", {}, make("h2", { textContent: name }), close)];
  const reason = study.reasons[i] ? `: ${study.reasons[i]}` : "";
  const also = [study.chosen === column(study.trial)[i] && !isBaseline(study, i) ? "the chosen network" : "",
    study.onFront.has(column(study.trial)[i]) && !isBaseline(study, i) ? "on the Pareto front" : ""].filter(Boolean);
  parts.push(make("p", { textContent: `${studies.length > 1 ? study.label + ": " : ""}${word(study.ending, i)}${reason}.${also.length ? ` It is ${also.join(" and ")}.` : ""}` }));
  if (study.sparedTexts[i]) parts.push(make("p", { textContent: study.sparedTexts[i] }));
  parts.push(...figuresOf(study, i), ...curve(study, i), ...plan(study, i), ...times(study, i));
  dialog.replaceChildren(...parts);
  dialog.dataset.trial = name;
  dialog.showModal();
  dialog.scrollTop = 0;
}

function figuresOf(study, i) {
  const metrics = Object.keys(study.metrics).filter((metric) => !Number.isNaN(column(study.metrics[metric])[i]));
  if (!metrics.length) return [make("p", { className: "none", textContent: "It was not measured." })];
  const epochs = column(study.epoch)[i], unpruned = study.baselines.indexOf("unpruned");
  const head = ["", "right after pruning", ...(epochs ? [`after ${epochs} ${epochs === 1 ? "epoch" : "epochs"}`] : []),
    ...(unpruned >= 0 ? ["unpruned"] : [])];
  const body = metrics.map((metric) => {
    const bounds = study.intervals[metric] ? "\n" + interval(study, metric, i) : "";
    const now = figure(study, study.metrics, metric, i) + bounds;
    return [label(metric), epochs ? figure(study, study.pruned, metric, i) : now, ...(epochs ? [now] : []),
      ...(unpruned >= 0 ? [study.reference[metric] ? figure(study, study.reference, metric, i) : figure(study, study.metrics, metric, unpruned)] : [])];
  });
  const note = "The unpruned network's milliseconds are those in the same turns as this network's last." +
    (Object.values(study.imprecise).some((rows) => rows.includes(i)) ? " ~: imprecise, since the time of the measurement was over before its ratios were known to 1 %." : "");
  return [make("h3", { textContent: "Figures" }), table(head, body), make("p", { className: "note", textContent: note })];
}

function plan(study, i) {
  const values = {};
  const add = (name, text) => { const dot = name.lastIndexOf("."); (values[name.slice(0, dot)] ??= []).push(`${name.slice(dot + 1)} ${text}`); };
  for (const name of Object.keys(study.parameters)) {
    if (!Number.isNaN(column(study.parameters[name])[i])) add(name, valueOf(study, name, i));
  }
  for (const name of Object.keys(study.choices)) if (word(study.choices[name], i)) add(name, word(study.choices[name], i));
  if (!Object.keys(values).length) return [];
  const cut = (weight) => {
    const before = column(study.before[weight])[i];
    return before ? `${column(study.kept[weight])[i]} of ${before}` : "–";
  };
  const body = Object.keys(values).flatMap((group) => {
    const heading = make("th", { colSpan: 2, scope: "rowgroup", textContent: `${group}: ${values[group].join(", ")}` });
    const cuts = (study.groups[group] ?? []).map((weight) =>
      make("tr", {}, make("td", { textContent: study.weights[weight] }), make("td", { textContent: cut(weight) })));
    return [make("tr", {}, heading), ...cuts];
  });
  return [make("h3", { textContent: "Asked, and kept of each weight and block" }),
    make("div", { className: "scroll" }, make("table", {}, make("tbody", {}, ...body)))];
}

function curve(study, i) {
  const [begin, end] = [0, 1].map((n) => column(study.curves.begins)[i + n]);
  if (end - begin < 1) return [];
  const top1 = [column(study.pruned.top1)[i], ...column(study.curves.top1).slice(begin, end)].map((value, n) => (n ? value / 100 : value));
  const loss = [...column(study.curves.train_loss).slice(begin, end)].map((value) => value / 1000);
  const [width, height, left, bottom] = [600, 150, 34, 22];
  const x = (n) => left + (n / (top1.length - 1)) * (width - left - 8), y = (value) => 6 + (1 - value / 100) * (height - bottom - 6);
  const points = top1.map((value, n) => (Number.isNaN(value) ? "" : `${x(n)},${y(value)}`)).join(" ");
  const text = (at, value, anchor) => `<text x="${at[0]}" y="${at[1]}" text-anchor="${anchor}" fill="currentColor">${value}</text>`;
  const box = make("div");
  box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="val top1 by epoch">` +
    [0, 50, 100].map((v) => `<path d="M${left} ${y(v)}H${width - 8}" stroke="var(--grid)"/>${text([left - 6, y(v) + 4], v, "end")}`).join("") +
    `<polyline points="${points}" fill="none" stroke="var(--accent)" stroke-width="2"/>` +
    text([left, height - 4], "epoch 0", "start") + text([width - 8, height - 4], `epoch ${top1.length - 1}`, "end") + "</svg>";
  return [make("h3", { textContent: "Retraining: val top1 (%) by epoch" }), box,
    make("p", { className: "note", textContent: `Training loss ${show(loss[0], 3)} in the first epoch, ${show(loss.at(-1), 3)} in the last.` })];
}

function times(study, i) {
  const spent = Object.keys(study.seconds).filter((stage) => column(study.seconds[stage])[i] > 0)
    .map((stage) => `${stage} ${show(column(study.seconds[stage])[i], 1)} s`);
  const started = column(study.started)[i], node = word(study.node, i);
  const when = Number.isNaN(started) ? "" : ` It began at ${new Date(started * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC${node ? " on " + node : ""}.`;
  const attempts = column(study.attempts)[i];
  const again = attempts > 1 ? ` It was begun ${attempts} times: its process, or the study, was lost meanwhile.` : "";
  return spent.length ? [make("h3", { textContent: "Time" }), make("p", { className: "note", textContent: `${spent.join(", ")}.${when}${again}` })] : [];
}

// The table of trials

function trialTable(place) {
  const study = studies[place.dataset.study], trials = study.size - study.baselines.length;
  const all = Array.from({ length: trials }, (_, n) => n + study.baselines.length);
  const metric = (metrics, name, title) => metrics[name] && { title, number: (i) => column(metrics[name])[i], text: (i) => figure(study, metrics, name, i) };
  const columns = [
    { title: "trial", number: (i) => column(study.trial)[i], name: true },
    { title: "ending", words: true, text: (i) => word(study.ending, i) },
    Object.keys(study.sparedTexts).length && { title: "audited or promoted", words: true, text: (i) => word(study.spared, i) },
    column(study.epoch).some((epoch) => epoch) && { title: "epochs", number: (i) => column(study.epoch)[i], text: (i) => show(column(study.epoch)[i], 0) },
    metric(study.pruned, "top1", "val top1, pruned (%)"),
    column(study.epoch).some((epoch) => epoch) && metric(study.metrics, "top1", "val top1, now (%)"),
    metric(study.metrics, "latency_ratio", "latency_ratio"),
    metric(study.metrics, "latency_ms", "latency (ms)"),
    metric(study.metrics, "total_latency_ms", "total latency (ms)"),
    metric(study.metrics, "throughput_fps", "throughput (fps)"),
    metric(study.metrics, "parameters", "parameters"),
    ...Object.keys(study.parameters).map((name) => ({ title: study.short[name], number: (i) => column(study.parameters[name])[i], text: (i) => valueOf(study, name, i) })),
  ].filter(Boolean);
  const state = { column: 0, sign: 1, page: 0, which: "all" };
  const head = make("tr"), body = make("tbody"), count = make("span");
  const [previous, next] = ["Previous", "Next"].map((textContent, n) => {
    const button = make("button", { textContent });
    button.addEventListener("click", () => { state.page += n ? 1 : -1; fill(); });
    return button;
  });
  const select = make("select", { ariaLabel: "Which trials" }, make("option", { value: "all", textContent: "all trials" }),
    make("option", { value: "front", textContent: "on the Pareto front" }),
    ...study.ending.words.filter((ending) => all.some((i) => word(study.ending, i) === ending))
      .map((ending) => make("option", { value: `=${ending}`, textContent: ending })),
    ...study.spared.words.filter(Boolean).map((spared) => make("option", { value: `~${spared}`, textContent: spared })));
  select.addEventListener("change", () => { state.which = select.value; state.page = 0; fill(); });
  columns.forEach((one, n) => {
    const button = make("button", { textContent: one.title });
    button.addEventListener("click", () => {
      state.sign = state.column === n ? -state.sign : 1;
      Object.assign(state, { column: n, page: 0 });
      fill();
    });
    head.append(make("th", { scope: "col", className: one.words ? "text" : "" }, button));
  });

  function sorted() {
    const { column: n, sign, which } = state, one = columns[n];
    const isShown = { all: () => true, front: (i) => study.onFront.has(column(study.trial)[i]) }[which] ??
      ((i) => [`=${word(study.ending, i)}`, `~${word(study.spared, i)}`].includes(which));
    const shown = all.filter(isShown);
    if (one.words) return shown.sort((a, b) => sign * one.text(a).localeCompare(one.text(b)) || a - b);
    return shown.sort((a, b) => {
      const [left, right] = [one.number(a), one.number(b)];
      if (Number.isNaN(left) || Number.isNaN(right)) return Number.isNaN(left) - Number.isNaN(right) || a - b;
      return sign * (left - right) || a - b;
    });
  }

  function fill() {
    const shown = sorted(), from = state.page * PAGE;
    [...head.children].forEach((cell, n) => cell.setAttribute("aria-sort", n === state.column ? (state.sign > 0 ? "ascending" : "descending") : "none"));
    body.replaceChildren(...shown.slice(from, from + PAGE).map((i) => {
      const cells = columns.map((one) => make("td", { className: one.words ? "text" : "", textContent: one.name ? "" : one.text(i) }));
      const open = make("button", { textContent: nameOf(study, i) });
      open.addEventListener("click", () => openCard(study.first + i));
      cells[0].append(open);
      return make("tr", { className: column(study.trial)[i] === study.chosen ? "chosen" : "" }, ...cells);
    }));
    count.textContent = shown.length ? `${from + 1} to ${Math.min(from + PAGE, shown.length)} of ${shown.length}` : "none";
    previous.disabled = !state.page;
    next.disabled = from + PAGE >= shown.length;
  }

  place.replaceChildren(make("div", { className: "bar" }, select, previous, next, count),
    make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body)));
  fill();
}
document.querySelectorAll(".trials").forEach(trialTable);
