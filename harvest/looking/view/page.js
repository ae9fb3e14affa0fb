"use strict";
// Data reaches the page as text only: make() appends strings, which are never read as markup.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);
const form = $("#filters");
const body = $("#rows tbody");
const narrow = matchMedia("(max-width:720px)");
const MARKS = { right: "✓ ", wrong: "✗ ", unjudged: "– " };
const KEYS = { order: null, asked: "asked", mass: "mass", cost: "cost", split: "split", status: "status", gold: "gold", said: "said", verdict: "verdict" };
let first = 0;
let shown = { rows: [], total: 0 };

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS($("#spend").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const dollars = (value) => (value === null ? "unknown" : "$" + value.toFixed(value && value < 0.01 ? 6 : 4));
const count = (value) => value.toLocaleString("en");
const plural = (value, name) => `${count(value)} ${name}${value === 1 ? "" : "s"}`;

// --- totals, teacher against the right labels, spend ---

function showSummary(summary) {
  const about = [summary.folder, summary.source].filter(Boolean).join(" · ");
  $("#about").textContent = `${about} · ${page.size}`;
  const cost = dollars(summary.cost_usd) + (summary.unpriced ? `, and ${plural(summary.unpriced, "row")} of unknown price` : "");
  const totals = [["rows kept", `${count(summary.rows)} of ${count(Math.max(summary.planned, summary.rows))}`], ["cost", cost]];
  for (const [status, rows] of Object.entries(summary.statuses)) totals.push([status, count(rows)]);
  if (summary.unsealed) totals.push(["not sealed yet", count(summary.unsealed)]);
  $("#totals").replaceChildren(...totals.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  $("#agreement").hidden = !summary.agreement;
  if (summary.agreement) showAgreement(summary.agreement);
  showConfusion(summary.confusion);
  $("#spending").hidden = summary.spend.length < 2;
}

function showAgreement({ rule, splits }) {
  const percent = (share) => (100 * share).toFixed(1);
  const head = ["split", "right (95% interval)", "rows", "not judged"].map((name) => make("th", { scope: "col" }, name));
  const lines = Object.entries(splits).map(([name, split]) => {
    const share = split.share === null ? "" : `${percent(split.share)}% (${percent(split.low)} to ${percent(split.high)})`;
    const cells = [name, share, `${count(split.right)} of ${count(split.judged)}`, count(split.refused + split.unread)];
    return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
  });
  $("#rule").textContent = `Judged by ${rule}, first answers only. Not judged: refusals, and what brought no whole answer.`;
  $("#agreed").replaceChildren(make("tr", {}, ...head), ...lines);
}

function showConfusion(confusion) {
  const table = $("#confusion");
  table.hidden = !confusion;
  if (!confusion) return;
  const left = confusion.left_out ? ` The labels that are most often confused: ${plural(confusion.left_out, "row")} of others are left out.` : "";
  $("#reading").textContent = `A line is the right label, a column the teacher's. A number shows its rows below.${left}`;
  const most = Math.max(1, ...confusion.rows.flat());
  const head = confusion.labels.map((label) => make("th", { scope: "col", title: label }, label));
  const lines = confusion.rows.map((counts, line) => {
    const cells = counts.map((value, column) => {
      const pair = { type: "button", "data-gold": confusion.labels[line], "data-said": confusion.labels[column] };
      const cell = make("td", column === line ? { class: "same" } : {}, make("button", pair, count(value)));
      cell.style.background = `rgb(var(--shade) / ${0.5 * value / most})`;
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row", title: confusion.labels[line] }, confusion.labels[line]), ...cells);
  });
  table.replaceChildren(make("tr", {}, make("th"), ...head), ...lines);
}

function showSpend(points) {
  const width = $("#spend").clientWidth || 600;
  const [left, right, top, bottom] = [64, width - 8, 10, 205];
  const [start, end, most] = [points[0][0], points[points.length - 1][0], points[points.length - 1][1]];
  const x = (at) => left + ((at - start) / (end - start || 1)) * (right - left);
  const y = (spent) => bottom - (spent / most) * (bottom - top);
  const steps = points.map(([at, spent], i) => (i ? `H${x(at).toFixed(1)}V${y(spent).toFixed(1)}` : `M${x(at).toFixed(1)},${y(spent).toFixed(1)}`));
  const moment = (at) => new Date(at * 1000).toISOString().replace("T", " ").slice(0, 16);
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    draw("line", { class: "grid", x1: left, x2: right, y1: y(share * most), y2: y(share * most) }),
    draw("text", { x: left - 6, y: y(share * most) + 4, "text-anchor": "end" }, "$" + Number((share * most).toPrecision(3))),
  ]);
  parts.push(draw("text", { x: left, y: bottom + 22 }, moment(start)), draw("text", { x: right, y: bottom + 22, "text-anchor": "end" }, moment(end)));
  $("#spend").replaceChildren(...parts, draw("path", { class: "line", d: steps.join("") }));
  $("#spend").setAttribute("viewBox", `0 0 ${width} 240`);
  $("#spend").setAttribute("aria-label", `Spend over time: ${dollars(most)} from ${moment(start)} to ${moment(end)} UTC`);
}

// --- which rows ---

function readQuery() {
  const query = Object.fromEntries(new FormData(form));
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ""));
}

function passes(row, query) {
  const same = ["split", "status", "gold", "said", "verdict"].every((name) => !(name in query) || row[name] === query[name]);
  const above = ["mass", "cost"].every((name) => !(name in query) || (row[name] !== null && row[name] >= Number(query[name])));
  const sought = (query.find || "").toLowerCase();
  return same && above && (!sought || [row.id, row.text, row.reply].some((text) => (text || "").toLowerCase().includes(sought)));
}

function compare(one, other) {
  return typeof one === "number" ? one - other : one < other ? -1 : one > other ? 1 : 0;
}

async function findRows(query) {
  const found = page.rows.filter((row) => passes(row, query));
  const key = KEYS[query.sort];
  if (key) {
    const known = found.filter((row) => row[key] !== null).sort((one, other) => compare(one[key], other[key]));
    if (query.down) known.reverse();
    found.splice(0, found.length, ...known, ...found.filter((row) => row[key] === null));
  } else if (query.down) found.reverse();
  return { rows: found.slice(first, first + page.count), total: found.length };
}

async function show() {
  const query = readQuery();
  shown = await findRows(query);
  body.replaceChildren(...shown.rows.map(makeRow));
  const last = first + shown.rows.length;
  $("#found").textContent = `${plural(shown.total, "row")} found${page.rows.length < page.summary.rows ? ` among the ${count(page.rows.length)} in this file` : ""}`;
  $("#at").textContent = shown.total ? `${count(first + 1)} to ${count(last)} of ${count(shown.total)}` : "nothing";
  $("#back").disabled = !first;
  $("#on").disabled = last >= shown.total;
  for (const button of document.querySelectorAll("#rows [data-sort]")) {
    const state = query.sort !== button.dataset.sort ? "none" : query.down ? "descending" : "ascending";
    button.parentElement.setAttribute("aria-sort", state);
  }
  const { sort, ...rest } = query;
  history.replaceState(null, "", "#" + new URLSearchParams(sort === "order" ? rest : query));
}

function restart() {
  first = 0;
  show();
}

// --- a row, and what it holds ---

function makeRow(row, number) {
  const open = make("button", { type: "button", class: "open", "aria-expanded": "false", "data-number": number }, row.text || "(no text)");
  const cell = (style, ...children) => make("td", style ? { class: style } : {}, ...children);
  const short = (text) => make("span", { class: "short" }, text === null ? "" : text.slice(0, 200));
  const mass = page.labelled ? [cell("more number", row.mass === null ? "" : row.mass.toFixed(3))] : [];
  return make("tr", { class: "row" }, cell(`mark ${row.verdict}`, MARKS[row.verdict], make("span", {}, row.verdict === "unjudged" ? "" : row.verdict)), cell("", open), cell("", short(row.gold)),
    cell("", short(row.said === null ? row.reply : row.said)), ...mass, cell("more number", dollars(row.cost)), cell("more", row.status), cell("more", row.split));
}

async function toggle(button) {
  const line = button.closest("tr");
  const isOpen = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!isOpen));
  if (isOpen) return line.nextElementSibling.remove();
  const cell = make("td");
  line.after(make("tr", { class: "detail" }, cell));
  cell.append(makeDetail(shown.rows[button.dataset.number]));
  spanDetails();
}

function spanDetails() {
  const columns = [...document.querySelectorAll("#rows thead th")].filter((head) => head.offsetParent).length;
  for (const cell of body.querySelectorAll(".detail > td")) cell.colSpan = columns;
}

function makeDetail(row) {
  const list = make("dl");
  const add = (name, ...values) => values.some((value) => value !== null && value !== "") && list.append(make("dt", {}, name), ...values.map((value) => make("dd", {}, value)));
  add("reply", row.reply);
  add("right answer", row.gold, ...row.references);
  if (row.probabilities.length) add("teacher's probabilities", make("div", {}, ...[...row.probabilities, ["(no label)", row.mass || 0]].map(makeBar)));
  add("error", row.error);
  add("text", row.text);
  add("row", `${row.id}${row.draw ? `, draw ${row.draw}` : ""} of ${row.split}: ${row.status}`);
  add("asked", `${row.bill}, ${dollars(row.cost)}`);
  const pictures = row.pictures.shown.map(({ src, note }) => make("figure", {}, make("img", { src, alt: "the picture of this row: its text stands beside it" }), make("figcaption", {}, note)));
  const seen = pictures.length || row.pictures.note ? make("div", {}, ...pictures, make("p", { class: "soft" }, row.pictures.note)) : null;
  return make("div", { class: "both" }, seen, list);
}

function makeBar([label, probability]) {
  const bar = make("i");
  bar.style.width = `${100 * probability}%`;
  return make("div", { class: "bar" }, make("span", {}, label), make("span", {}, `${(100 * probability).toFixed(1)}%`), bar);
}

// --- what the reader does ---

function turn(pages) {
  const next = first + pages * page.count;
  if (next < 0 || next >= shown.total) return;
  first = next;
  show().then(() => $("#rows-title").scrollIntoView());
}

function move(rows) {
  const buttons = [...body.querySelectorAll(".open")];
  const next = buttons[buttons.indexOf(document.activeElement) + rows] || buttons[rows > 0 ? 0 : buttons.length - 1];
  if (next) next.focus();
}

const ACTIONS = {
  j: () => move(1), k: () => move(-1), n: () => turn(1), p: () => turn(-1), "/": () => form.elements.find.focus(),
  Escape: () => body.querySelectorAll("[aria-expanded=true]").forEach(toggle),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input,select") && event.key !== "Escape";
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in ACTIONS)) return;
  event.preventDefault();
  ACTIONS[event.key]();
});
body.addEventListener("click", (event) => {
  const line = event.target.closest("tr.row");
  if (line && !String(getSelection())) toggle(line.querySelector(".open"));
});
$("#rows thead").addEventListener("click", (event) => {
  const sort = event.target.dataset.sort;
  if (!sort) return;
  form.elements.down.checked = form.elements.sort.value === sort && !form.elements.down.checked;
  form.elements.sort.value = sort;
  restart();
});
$("#confusion").addEventListener("click", (event) => {
  const { gold, said } = event.target.dataset;
  if (gold === undefined) return;
  form.elements.gold.value = gold;
  form.elements.said.value = said;
  restart();
  $("#rows-title").scrollIntoView();
});
form.addEventListener("input", restart);
form.addEventListener("reset", () => setTimeout(restart));
form.addEventListener("submit", (event) => event.preventDefault());
narrow.addEventListener("change", spanDetails);
new ResizeObserver(() => page.summary.spend.length > 1 && showSpend(page.summary.spend)).observe($("#spend"));
$("#back").addEventListener("click", () => turn(-1));
$("#on").addEventListener("click", () => turn(1));

function start() {
  const { summary } = page;
  const offer = (name, values) => form.elements[name].append(...values.map((value) => make("option", { value }, value)));
  page.labelled = summary.labels.length > 0;
  for (const element of document.querySelectorAll(".labelled")) element.hidden = !page.labelled;
  offer("split", Object.keys(summary.splits));
  offer("status", Object.keys(summary.statuses));
  offer("gold", summary.labels);
  offer("said", summary.labels);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const field = form.elements.namedItem(name);
    if (field && field.type === "checkbox") field.checked = true;
    else if (field) field.value = value;
  }
  showSummary(summary);
  show();
}

start();
