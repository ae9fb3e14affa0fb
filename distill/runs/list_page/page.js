const body = $("#runs tbody");
const COLORS = 6, DASHES = 4, FIRST = 4; // lines that differ, and runs that are chosen at first
// name, what a heading says, whether it is a number, whether it is left out where there is no room
const COLUMNS = [
  ["name", "Run", false, false], ["state", "State", false, true], ["task", "Task", false, true], ["teacher", "Teacher", false, true],
  ["student", "Student", false, true], ["variant", "Variant", false, true], ["loss", "Loss", false, true], ["seed", "Seed", true, true],
  ["dev", "Dev", true, false], ["test", "Test", true, false], ["seconds", "Seconds", true, true], ["when", "When (UTC)", false, true],
];
const FALLING = new Set(["dev", "test", "when"]);
let sort = "when", down = true;
const chosen = new Set(page.runs.filter(hasCurve).slice(0, FIRST));

function hasCurve(run) {
  return run.curves.loss.length + run.curves.dev.length > 0;
}

function write(run, column) {
  const value = run[column];
  if (value === null) return "";
  if (column === "dev" || column === "test") return value.toFixed(4);
  if (column === "seconds") return Math.round(value).toLocaleString("en");
  return column === "when" ? value.slice(0, 16).replace("T", " ") : String(value);
}

// --- the table ---

function compare(one, other) {
  const [a, b] = [one[sort], other[sort]];
  if (a === null || b === null) return (a === null) - (b === null); // unknown is last, either way
  const order = a < b ? -1 : a > b ? 1 : 0;
  return down ? -order : order;
}

function find() {
  const sought = $("#filters").elements.find.value.toLowerCase();
  return page.runs.filter((run) => COLUMNS.some(([name]) => write(run, name).toLowerCase().includes(sought))).sort(compare);
}

function makeHead() {
  const cells = COLUMNS.map(([name, heading, number, wide]) => {
    const button = make("button", { type: "button", "data-sort": name }, heading);
    return make("th", { scope: "col", class: `${number ? "number" : ""} ${wide ? "wide" : ""}` }, button);
  });
  $("#runs thead tr").append(make("th", { scope: "col", class: "pick" }, make("span", {}, "Curve")), ...cells);
}

function makeRow(run) {
  const box = make("input", { type: "checkbox", "aria-label": `curve of ${run.name}` });
  box.checked = chosen.has(run);
  box.disabled = !hasCurve(run);
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(run);
    else chosen.delete(run);
    showCurves();
  });
  const cells = COLUMNS.slice(1).map(([name, , number, wide]) => make("td", { class: `${number ? "number" : ""} ${wide ? "wide" : ""} ${name}` }, write(run, name)));
  const rest = [run.state, run.task, run.teacher, run.variant, run.seed === null ? null : `seed ${run.seed}`].filter((part) => part !== null);
  const name = make("th", { scope: "row" }, run.name, make("span", { class: "more" }, rest.join(" · ")));
  return make("tr", {}, make("td", { class: "pick" }, make("label", {}, box)), name, ...cells);
}

function showRuns() {
  const found = find();
  body.replaceChildren(...found.map(makeRow));
  $("#found").textContent = `${found.length} of ${page.runs.length} runs`;
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.parentElement.setAttribute("aria-sort", button.dataset.sort === sort ? (down ? "descending" : "ascending") : "none");
  }
}

// --- the curves ---

function makeTicks(low, high) {
  const rough = (high - low || Math.abs(high) || 1) / 4;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = magnitude * [1, 2, 5, 10].find((times) => times * magnitude >= rough);
  const ticks = [];
  for (let number = Math.ceil(low / step); number * step <= high + step / 1000; number += 1) ticks.push(Number((number * step).toPrecision(6)));
  return ticks;
}

function drawChart(name, lines) {
  const figure = $(`#${name}`), svg = figure.querySelector("svg");
  const shown = lines.filter(({ run }) => run.curves[name].length);
  figure.hidden = !shown.length;
  if (!shown.length) {
    svg.replaceChildren();
    return;
  }
  const points = shown.flatMap(({ run }) => run.curves[name]);
  const span = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  let [[first, last], [low, high]] = [span(points.map(([step]) => step)), span(points.map(([, value]) => value))];
  const air = (high - low) * 0.06 || Math.abs(high) * 0.05 || 0.05;
  [low, high] = [low - air, high + air];
  const width = svg.clientWidth || 360, [left, right, top, bottom] = [56, width - 14, 8, 222];
  const x = (step) => left + ((step - first) / (last - first || 1)) * (right - left);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  const parts = makeTicks(low, high).flatMap((tick) => [
    draw("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
    draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)),
  ]);
  parts.push(draw("text", { x: left, y: bottom + 20 }, String(first)), draw("text", { x: right, y: bottom + 20, "text-anchor": "end" }, `${last} steps`));
  for (const { run, style } of shown) {
    const curve = run.curves[name];
    const label = `${run.name}: ${curve[curve.length - 1][1].toPrecision(4)} after ${curve[curve.length - 1][0]} steps`;
    const line = draw("polyline", { class: `line ${style}`, points: curve.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
    line.append(draw("title", {}, label));
    parts.push(line);
    if (curve.length < 3) parts.push(...curve.map(([step, value]) => draw("circle", { class: `dot ${style}`, cx: x(step), cy: y(value), r: 3.5 })));
  }
  svg.setAttribute("viewBox", `0 0 ${width} 260`);
  svg.setAttribute("aria-label", `${figure.querySelector("figcaption").textContent}: ${shown.map(({ run }) => run.name).join(", ")}`);
  svg.replaceChildren(...parts);
}

function showCurves() {
  const lines = page.runs.filter((run) => chosen.has(run)).map((run, number) => ({ run, style: `s${number % COLORS} d${Math.floor(number / COLORS) % DASHES}` }));
  $("#none").hidden = lines.length > 0;
  for (const name of ["loss", "dev"]) drawChart(name, lines);
  $("#legend").replaceChildren(...lines.map(({ run, style }) => {
    const key = draw("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" });
    key.append(draw("line", { class: `line ${style}`, x1: 0, x2: 26, y1: 5, y2: 5 }));
    return make("li", {}, key, make("span", {}, run.name));
  }));
}

// --- what the reader does ---

function move(rows) {
  moveFocus([...body.querySelectorAll("input:enabled")], rows);
}

function clear() {
  chosen.clear();
  for (const box of body.querySelectorAll("input")) box.checked = false;
  showCurves();
}

const ACTIONS = { j: () => move(1), k: () => move(-1), "/": () => $("#filters").elements.find.focus(), Escape: clear };

hearKeys(ACTIONS, "input[type=search]");
$("#runs thead").addEventListener("click", (event) => {
  const name = event.target.dataset.sort;
  if (!name) return;
  down = name === sort ? !down : FALLING.has(name);
  sort = name;
  showRuns();
});
$("#filters").addEventListener("input", showRuns);
$("#filters").addEventListener("submit", (event) => event.preventDefault());
$("#clear").addEventListener("click", clear);
new ResizeObserver(showCurves).observe($("#charts"));

$("#others").hidden = !page.others.length;
$("#others ul").append(...page.others.map(({ folder, why }) => make("li", {}, `${folder} ${why}`)));
makeHead();
showRuns();
showCurves();
