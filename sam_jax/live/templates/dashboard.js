// The page of runs: its table, its arms and its charts, and the asking for what is new.

const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("about").textContent);
const still = JSON.parse(byId("data").textContent); // all runs of a page that asks for nothing
const PATIENCE = 2000; // milliseconds from one question to the next
// The colours of Okabe and Ito; on dark paper, lighter ones of the same order.
const LIGHT = ["#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"];
const DARK = ["#f2f2f2", "#4da6e0", "#ff8a47", "#2fc79a", "#f5b83d", "#e3a0c4", "#9bd4f7"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const PAPER = { width: 480, height: 280 }; // of a chart, two of which stand on a line of A4
const STROKES = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };

const dark = matchMedia("(prefers-color-scheme: dark)");
const runs = new Map(); // by name, in the order of the server
const arms = new Map(); // by name: its number, which gives its colour and stays; the first began first
const hidden = new Set(); // arms
const rows = new Map();
let version = 0;
let clock = 0; // seconds since 1970 where the runs are
let onPaper = false; // while the page is printed, black on white

function styleOf(arm) {
  const number = arms.get(arm);
  const colours = dark.matches && !onPaper ? DARK : LIGHT;
  return { colour: colours[number % colours.length],
    dash: DASHES[Math.floor(number / colours.length) % DASHES.length] };
}

// --- what came ------------------------------------------------------------------------------------

function take(answer) {
  const came = new Map(answer.runs.map((run) => [run.name, run]));
  const names = new Set(answer.names);
  const changed = came.size > 0 || [...runs.keys()].some((name) => !names.has(name));
  const before = new Map(runs);
  runs.clear();
  for (const name of answer.names) runs.set(name, came.get(name) ?? before.get(name));
  numberArms();
  [version, clock] = [answer.version, answer.now];
  const counts = about.states.map((state) =>
    [state, [...runs.values()].filter((run) => run.state === state).length]);
  const words = counts.filter(([, n]) => n).map(([state, n]) => `${n} ${state}`).join(", ");
  const at = new Date(1000 * clock).toLocaleTimeString("en-GB");
  say(runs.size ? `${runs.size} run${runs.size === 1 ? "" : "s"}: ${words}; as of ${at}.`
    : `There is no run yet, as of ${at}: a folder with a config.json and a metrics.jsonl.`);
  showRows(changed);
  if (changed) {
    showArms();
    showCharts();
  }
}

// A page that is loaded anew gives the arms the colours that they had as they began.
function numberArms() {
  const began = new Map(); // the new arms, in the order of the server
  for (const run of runs.values()) {
    if (arms.has(run.arm)) continue;
    began.set(run.arm, Math.min(began.get(run.arm) ?? Number.MAX_VALUE, run.began_at ?? Number.MAX_VALUE));
  }
  for (const [arm] of [...began].sort(([, a], [, b]) => a - b)) arms.set(arm, arms.size);
}

function say(words, isFault = false) {
  byId("status").textContent = words;
  byId("status").className = isFault ? "lost" : "muted";
}

// --- the table ------------------------------------------------------------------------------------

const decimal = (value, digits) => (value === null ? "—" : value.toFixed(digits).replace("-", "−"));
const loss = (value) => (value && (Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3)
  ? value.toExponential(2).replace("-", "−") : decimal(value, 4));
const percent = (value) => (value === null ? "—" : `${decimal(100 * value, 2)} %`);
const rate = (value) => (value === null ? "—" : value >= 100
  ? Math.round(value).toLocaleString("en-US") : decimal(value, 1));

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${two(Math.floor((s % 86400) / 3600))} h`;
}

function cell(row, text, { kind = "", value, title = "" } = {}) {
  const made = row.insertCell();
  made.textContent = text;
  if (kind) made.className = kind;
  if (title) made.title = title;
  if (value !== undefined) made.dataset.value = value ?? "";
  return made;
}

// Texts with places where a line may end, as a name without spaces has none.
const breakable = (text) => text.split(/(?<=[_,=\/-])/)
  .flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));

function fill(row, run) {
  row.replaceChildren();
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.style.background = styleOf(run.arm).colour;
  const arm = cell(row, "", { kind: "text", title: run.name });
  arm.append(dot, ...breakable(run.arm));
  cell(row, run.seed ?? "—");
  const state = document.createElement("span");
  [state.className, state.textContent] = [run.state, run.state];
  cell(row, "", { kind: "text" }).append(state);
  cell(row, run.epochs === null ? run.epoch : `${run.epoch} of ${run.epochs}`);
  const last = run.last;
  cell(row, loss(last.batch_loss), { value: last.batch_loss });
  cell(row, percent(last.batch_accuracy));
  cell(row, loss(last.test_loss), { value: last.test_loss });
  cell(row, percent(last.test_accuracy));
  cell(row, rate(last.images_per_second));
  const left = run.ends_at === null ? null : run.ends_at - clock;
  cell(row, left === null ? "—" : duration(left), { value: left });
  cell(row, run.notes.join("; "), { kind: "text notes" });
  row.classList.toggle("off", hidden.has(run.arm));
}

function showRows(reordered) {
  const table = byId("runs");
  table.hidden = runs.size === 0;
  for (const [name, row] of rows) if (!runs.has(name)) { row.remove(); rows.delete(name); }
  for (const [name, run] of runs) {
    if (!rows.has(name)) rows.set(name, table.tBodies[0].insertRow());
    const row = rows.get(name);
    if (row.shown === run && run.ends_at === null) continue;
    row.shown = run;
    fill(row, run);
  }
  if (!reordered) return;
  table.tBodies[0].append(...[...runs.keys()].map((name) => rows.get(name)));
  const heads = [...table.tHead.rows[0].cells];
  const sorted = heads.findIndex((head) => head.hasAttribute("aria-sort"));
  if (sorted >= 0) sortRows(table, sorted, heads[sorted].getAttribute("aria-sort") === "descending");
}

// --- arms -----------------------------------------------------------------------------------------

function swatch({ colour, dash }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const parts = { x1: 0, y1: 5, x2: 26, y2: 5, stroke: colour, "stroke-width": 3,
    "stroke-dasharray": STROKES[dash] };
  for (const [name, value] of Object.entries(parts)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function showArms() {
  const present = [...new Set([...runs.values()].map((run) => run.arm))];
  const seeds = (arm) => [...runs.values()].filter((run) => run.arm === arm).length;
  const buttons = present.map((arm) => {
    const button = document.createElement("button");
    const name = document.createElement("span");
    name.append(...breakable(arm), seeds(arm) > 1 ? ` (${seeds(arm)})` : "");
    button.append(swatch(styleOf(arm)), name);
    button.setAttribute("aria-pressed", !hidden.has(arm));
    button.title = "Hide or show this arm";
    button.addEventListener("click", () => {
      if (!hidden.delete(arm)) hidden.add(arm);
      refresh();
      [...byId("arms").children][present.indexOf(arm)]?.focus();
    });
    return button;
  });
  if (present.length > 2) {
    const all = document.createElement("button");
    all.textContent = hidden.size ? "Show all" : "Hide all";
    all.addEventListener("click", () => {
      if (hidden.size) hidden.clear();
      else present.forEach((arm) => hidden.add(arm));
      refresh();
    });
    buttons.push(all);
  }
  byId("arms").replaceChildren(...buttons);
  byId("arms").parentElement.hidden = present.length === 0;
  byId("averaging").hidden = !present.some((arm) => seeds(arm) > 1);
  byId("explanation").hidden = present.length === 0;
}

// Draw everything anew, after a choice of the reader.
function refresh() {
  for (const [name, run] of runs) fill(rows.get(name), run);
  showArms();
  showCharts();
}

// --- charts ---------------------------------------------------------------------------------------

const figures = new Map(); // by field
const inView = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target.id);
    else inView.delete(target.id);
    if (isIntersecting && target.stale) draw(target);
  }
}, { rootMargin: "200px" });

function showCharts() {
  for (const chart of about.charts) {
    const isThere = [...runs.values()].some((run) => run.curves[chart.field]);
    if (isThere && !figures.has(chart.field)) makeFigure(chart);
    const figure = figures.get(chart.field);
    if (!figure) continue;
    figure.hidden = !isThere;
    figure.stale = true;
    if (inView.has(figure.id)) draw(figure);
  }
}

function makeFigure(chart) {
  const figure = document.createElement("figure");
  const title = document.createElement("h2");
  const plot = document.createElement("div");
  title.textContent = chart.title;
  plot.className = "plot";
  figure.append(title, plot);
  [figure.id, figure.chart] = [`chart-${chart.field}`, chart];
  figures.set(chart.field, figure);
  // In the order of the list, also where a later look brings a field.
  byId("charts").append(...about.charts.map((each) => figures.get(each.field)).filter(Boolean));
  watcher.observe(figure);
}

// The mean over seeds at the epochs that all of them have a finite number of.
function mean(curves) {
  const sums = new Map();
  for (const { x, y } of curves)
    x.forEach((epoch, i) => {
      if (y[i] === null) return;
      const [n, sum] = sums.get(epoch) ?? [0, 0];
      sums.set(epoch, [n + 1, sum + y[i]]);
    });
  const whole = [...sums].filter(([, [n]]) => n === curves.length).sort(([a], [b]) => a - b);
  return { x: whole.map(([epoch]) => epoch), y: whole.map(([, [n, sum]]) => sum / n) };
}

// Several curves as one trace, with gaps between them.
function joined(curves, of) {
  return curves.flatMap((curve) => [...of(curve), null]);
}

function traces(chart) {
  const found = [];
  const factor = chart.is_fraction ? 100 : 1;
  const scaled = (values) => values.map((v) => (v === null ? null : factor * v));
  const unit = chart.is_fraction ? " %" : "";
  for (const arm of arms.keys()) {
    if (hidden.has(arm)) continue;
    const ours = [...runs.values()].filter((run) => run.arm === arm && run.curves[chart.field]);
    if (!ours.length) continue;
    const curves = ours.map((run) => ({ ...run.curves[chart.field], run }));
    const { colour, dash } = styleOf(arm);
    const averaged = curves.length > 1 && byId("means").checked ? mean(curves) : null;
    if (chart.error)
      found.push({ type: "scatter", mode: "lines", fill: "toself", fillcolor: colour, opacity: 0.18,
        line: { width: 0 }, hoverinfo: "skip", ...band(curves) });
    const isShort = curves.every(({ x }) => x.length < 3);
    found.push({
      type: "scatter", mode: isShort ? "lines+markers" : "lines", opacity: averaged ? 0.6 : 1,
      x: joined(curves, (curve) => curve.x), y: joined(curves, (curve) => scaled(curve.y)),
      text: joined(curves, (curve) => curve.x.map(() => label(curve.run))),
      line: { color: colour, dash, width: averaged ? 1 : 1.6 },
      hovertemplate: `%{text}<br>epoch %{x}: %{y}${unit}<extra></extra>`,
    });
    if (averaged?.x.length)
      found.push({
        type: "scatter", mode: isShort ? "lines+markers" : "lines", x: averaged.x, y: scaled(averaged.y),
        line: { color: colour, dash, width: 2.4 }, text: averaged.x.map(() => `${plain(arm)}, mean`),
        hovertemplate: `%{text}<br>epoch %{x}: %{y}${unit}<extra></extra>`,
      });
  }
  return found;
}

// Plotly reads a few tags in texts: these are shown as they are.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
const label = (run) => plain(run.seed === null ? run.arm : `${run.arm}, seed ${run.seed}`);

// The bands of one standard error around each curve; a point without one has its own height.
function band(curves) {
  const edge = ({ y, error }, sign) =>
    y.map((v, i) => (v === null ? null : v + sign * (error?.[i] ?? 0)));
  const around = curves.map((curve) => {
    const kept = curve.x.map((_, i) => i).filter((i) => curve.y[i] !== null);
    const [low, high] = [edge(curve, -1), edge(curve, 1)];
    const back = [...kept].reverse();
    return { x: [...kept, ...back].map((i) => curve.x[i]),
      y: [...kept.map((i) => high[i]), ...back.map((i) => low[i])] };
  });
  return { x: joined(around, (part) => part.x), y: joined(around, (part) => part.y) };
}

// Of one value alone plotly would show the rounding.
function isConstant(shown) {
  const values = shown.flatMap((trace) => trace.y).filter((y) => y !== null);
  const [low, high] = values.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]);
  return high - low <= 1e-5 * Math.abs(high);
}

async function draw(figure) {
  figure.stale = false;
  const Plotly = await plottingLibrary();
  const style = getComputedStyle(document.body);
  const [ink, rule] = onPaper ? ["#000", "#bbb"] : [style.color, style.getPropertyValue("--rule")];
  const chart = figure.chart;
  const axis = { color: ink, gridcolor: rule, linecolor: rule, zeroline: false, automargin: true };
  const shown = traces(chart);
  const isLogarithmic = byId("logarithmic").checked && !chart.is_fraction;
  const layout = {
    ...(onPaper ? PAPER : {}),
    margin: { l: 46, r: 8, t: 6, b: 34 }, showlegend: false, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 11 },
    uirevision: isLogarithmic, // a zoom stays when news come
    xaxis: { ...axis, title: { text: "epoch", standoff: 4 }, rangemode: "tozero" },
    yaxis: { ...axis, type: isLogarithmic ? "log" : "linear", ticksuffix: chart.is_fraction ? " %" : "",
      tickformat: ".4~g", rangemode: isConstant(shown) ? "tozero" : "normal" },
  };
  const plot = figure.querySelector(".plot");
  await Plotly.react(plot, shown, layout, { responsive: true, displayModeBar: false });
  figure.dataset.points = shown.reduce((n, t) => n + t.x.filter((x) => x !== null).length, 0);
}

// --- the asking -----------------------------------------------------------------------------------

async function ask() {
  if (!document.hidden) {
    try {
      const answer = await fetch(`runs.json?after=${version}`);
      if (!answer.ok) throw new Error(`the server says ${answer.status}`);
      take(await answer.json());
    } catch (error) {
      say(`No news: ${error.message}. Is the dashboard still running?`, true);
    }
  }
  setTimeout(ask, PATIENCE);
}

makeSortable(byId("runs"));
for (const id of ["logarithmic", "means"]) byId(id).addEventListener("change", showCharts);
dark.addEventListener("change", refresh);
// Paper has all charts, also those that nobody has scrolled to.
for (const [event, prints] of [["beforeprint", true], ["afterprint", false]])
  addEventListener(event, () => {
    onPaper = prints;
    refresh();
    if (prints) for (const figure of figures.values()) draw(figure);
  });
if (still) take(still);
else ask();
