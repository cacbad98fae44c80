// Tables sort, figures open in full size, and surfaces turn. Nothing is fetched.

for (const table of document.querySelectorAll("table.sortable"))
  if (table.tBodies[0].rows.length > 1) makeSortable(table);

// --- figures --------------------------------------------------------------------------------------

const dialog = document.createElement("dialog");
const close = document.createElement("button");
const pane = document.createElement("div");
const large = document.createElement("img");
close.textContent = "Close";
pane.append(large);
dialog.append(close, pane);
document.body.append(dialog);
close.addEventListener("click", () => dialog.close());
large.addEventListener("click", () => dialog.classList.toggle("full"));
pane.addEventListener("click", (event) => event.target === pane && dialog.close());

for (const image of document.querySelectorAll("figure img")) {
  const button = document.createElement("button");
  button.className = "enlarge";
  button.title = "Enlarge";
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    [large.src, large.alt] = [image.src, image.alt];
    dialog.classList.remove("full");
    dialog.showModal();
  });
}

// --- contents -------------------------------------------------------------------------------------

const links = [...document.querySelectorAll(".contents li a")];
const sections = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));

function markCurrent() {
  const line = window.innerHeight * 0.3;
  let current = -1;
  sections.forEach((heading, i) => {
    if (heading.getBoundingClientRect().top < line) current = i;
  });
  links.forEach((link, i) => {
    if (i !== current) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      const bar = link.closest(".contents");
      const [box, own] = [bar.getBoundingClientRect(), link.getBoundingClientRect()];
      bar.scrollLeft += own.left - box.left - (box.width - own.width) / 2;
    }
  });
}

let waiting = false;
window.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    markCurrent();
  });
});
markCurrent();

// --- surfaces -------------------------------------------------------------------------------------

function hasWebGL() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function choice(controls, words, names) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  select.append(...names.map((name, i) => new Option(name, i)));
  label.append(words + " ", select);
  controls.append(label);
  return select;
}

const short = (value) => String(Number(value.toPrecision(2)));

// The traces and the layout of one plane. Heights are logarithms where the scale is.
function drawing(data, plane, view, logarithmic, camera, narrow) {
  const style = getComputedStyle(document.body);
  const [ink, rule] = [style.color, style.getPropertyValue("--rule")];
  const [low, high] = data.range;
  const height = (v) => {
    if (v === null) return null;
    const inside = Math.min(Math.max(v, low), high);
    return logarithmic ? Math.log10(inside) : inside;
  };
  const z = plane.z.map((row) => row.map(height));
  const ends = [height(low), height(high)];
  const marks = [];
  if (logarithmic) {
    for (let power = Math.floor(ends[0]); power <= Math.ceil(ends[1]); power += 1)
      for (const digit of [1, 2, 5]) marks.push(digit * 10 ** power);
  }
  let shown = marks.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  if (shown.length > 9) shown = shown.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-9);
  const ticks = shown.length > 1 ? { tickvals: shown.map(Math.log10), ticktext: shown.map(short) } : {};
  const texts = plane.z.map((row) => row.map((v) => (v === null ? "not finite" : String(v))));
  const colours = {
    colorscale: "Viridis",
    colorbar: { title: { text: narrow ? "" : data.value, side: "right" }, thickness: narrow ? 8 : 12,
      len: 0.8, ...ticks },
    hovertemplate: `%{x}, %{y}<br>${data.value} %{text}<extra></extra>`,
    text: texts,
  };
  const base = { x: plane.x, y: plane.y, z };
  const traces = [];
  const points = plane.path && { x: plane.path[0], y: plane.path[1] };
  const marked = (plane.landmarks ?? [["model", 0, 0]]).filter(Boolean);
  const spots = { x: marked.map((m) => m[1]), y: marked.map((m) => m[2]), text: marked.map((m) => m[0]) };
  const at = (x, y) => {
    const near = (axis, v) => axis.reduce((best, a, i) => (Math.abs(a - v) < Math.abs(axis[best] - v) ? i : best), 0);
    return z[near(plane.y, y)][near(plane.x, x)];
  };
  const lift = 0.015 * (ends[1] - ends[0]);
  const heights = (some) => some.x.map((x, i) => (at(x, some.y[i]) ?? ends[1]) + lift);
  const solid = view === 0;
  const kind = solid ? "scatter3d" : "scatter";
  if (solid)
    traces.push({ type: "surface", ...base, ...colours, cmin: ends[0], cmax: ends[1],
      contours: { z: { show: true, color: "rgba(255,255,255,.5)", width: 1,
        start: ends[0], end: ends[1], size: (ends[1] - ends[0]) / 12 } } });
  else
    traces.push({ type: "contour", ...base, ...colours, zmin: ends[0], zmax: ends[1],
      autocontour: false, contours: { start: ends[0], end: ends[1], size: (ends[1] - ends[0]) / 12 } });
  if (points)
    traces.push({ type: kind, mode: "lines", ...points, ...(solid ? { z: heights(points) } : {}),
      line: { color: "#D55E00", width: solid ? 6 : 3 }, hoverinfo: "skip" });
  traces.push({ type: kind, mode: plane.landmarks ? "markers+text" : "markers", ...spots, ...(solid ? { z: heights(spots) } : {}),
    textposition: "top center", textfont: { color: solid ? ink : "#fff" },
    marker: { color: "#D55E00", size: solid ? 4 : 8, line: { color: "#fff", width: 1 } }, hoverinfo: "text" });
  const axis = { color: ink, gridcolor: rule, zeroline: false };
  const layout = {
    margin: { l: solid ? 0 : 50, r: 0, t: 8, b: solid ? 0 : 44 }, showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
  };
  if (solid)
    layout.scene = { xaxis: { ...axis, title: { text: "x" } }, yaxis: { ...axis, title: { text: "y" } },
      zaxis: { ...axis, ...ticks, title: { text: data.value }, range: [ends[0], ends[1] + lift] },
      aspectmode: "manual", aspectratio: { x: 1.2, y: 1.2, z: 0.8 }, camera };
  else {
    // Where a path is drawn both axes are distances, and one unit of either is as long.
    const equal = plane.path ? { scaleanchor: "x", scaleratio: 1, constrain: "domain" } : {};
    layout.xaxis = { ...axis, title: { text: "x" }, constrain: "domain" };
    layout.yaxis = { ...axis, title: { text: "y" }, ...equal };
  }
  return [traces, layout];
}

function showSurfaces(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const [plot, controls] = [figure.querySelector(".plot"), figure.querySelector(".controls")];
  const model = choice(controls, "Plane", data.planes.map((plane) => plane.name));
  const view = choice(controls, "as", ["surface", "contours"]);
  const scale = choice(controls, "scale", ["linear", "logarithmic"]);
  const buttons = ["Turn left", "Turn right", "Nearer", "Farther"].map((words) => {
    const button = document.createElement("button");
    button.textContent = words;
    controls.append(button);
    return button;
  });
  scale.value = Number(data.logarithmic);
  scale.parentElement.hidden = data.range[0] <= 0;
  if (!hasWebGL()) view.value = 1;
  const narrow = plot.clientWidth < 500;
  const far = narrow ? 1.75 : 1.0; // a narrow window shows less beside the middle
  let camera = {
    eye: { x: -1.05 * far, y: -1.45 * far, z: far }, center: { x: 0, y: 0, z: -0.12 },
  };
  const draw = async () => {
    const Plotly = await plottingLibrary();
    const plane = data.planes[model.value];
    const parts = drawing(data, plane, Number(view.value), scale.value === "1", camera, narrow);
    if (!plot.classList.contains("js-plotly-plot")) plot.replaceChildren();
    await Plotly.react(plot, ...parts, { responsive: true, displayModeBar: false, scrollZoom: false });
    for (const button of buttons) button.disabled = view.value !== "0";
    figure.dataset.drawn = plane.name;
  };
  const move = async (angle, distance) => {
    const [x, y, z] = ["x", "y", "z"].map((axis) => distance * camera.eye[axis]);
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    camera = { ...camera, eye: { x: c * x - s * y, y: s * x + c * y, z } };
    await (await plottingLibrary()).relayout(plot, { "scene.camera": camera });
  };
  const begin = async () => {
    await draw();
    plot.on("plotly_relayout", (change) => { camera = change["scene.camera"] ?? camera; });
  };
  for (const select of [model, view, scale]) select.addEventListener("change", draw);
  const moves = [[Math.PI / 12, 1], [-Math.PI / 12, 1], [0, 0.85], [0, 1 / 0.85]];
  buttons.forEach((button, i) => button.addEventListener("click", () => move(...moves[i])));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return begin();
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((e) => e.isIntersecting)) {
    near.unobserve(entry.target);
    showSurfaces(entry.target).catch((error) => {
      entry.target.querySelector(".plot").textContent = `This browser cannot draw it: ${error.message}`;
    });
  }
}, { rootMargin: "300px" });
document.querySelectorAll("figure.surface").forEach((figure) => near.observe(figure));
