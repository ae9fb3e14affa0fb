const form = $("#filters");
const body = $("#rows tbody");
const narrow = matchMedia("(max-width:720px)");
const MARKS = { right: "✓ ", wrong: "✗ ", unjudged: "– " };
const RANKS = { wrong: 0, right: 1, unjudged: null };
const POLL_MS = 3000;
const TYPING_MS = page.live ? 400 : 100;
let first = 0;
let asked = 0;
let typing = 0;
let shown = { rows: [], total: 0 };

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

function sortKey(row, sort) {
  if (sort === "verdict") return RANKS[row.verdict];
  if (sort === "gold" || sort === "said") return row[sort] === null ? null : page.summary.labels.indexOf(row[sort]);
  return row[sort];
}

function findHere(query) {
  const found = page.rows.filter((row) => passes(row, query));
  if (query.sort === "order") {
    if (query.down) found.reverse();
  } else {
    const keyed = found.map((row) => [sortKey(row, query.sort), row]);
    const known = keyed.filter(([key]) => key !== null).sort(([one], [other]) => (query.down ? compare(other, one) : compare(one, other)));
    found.splice(0, found.length, ...[...known, ...keyed.filter(([key]) => key === null)].map(([, row]) => row));
  }
  return { rows: found.slice(first, first + page.count), total: found.length };
}

async function ask(name, parameters) {
  const answer = await fetch(`${name}?${new URLSearchParams(parameters)}`);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

async function show() {
  const query = readQuery();
  const mine = (asked += 1);
  if (page.live) $("#found").textContent = "looking …";
  body.setAttribute("aria-busy", "true");
  try {
    const found = page.live ? await ask("rows", { ...query, down: "down" in query, first, count: page.count }) : findHere(query);
    if (mine !== asked) return; // another question was asked meanwhile
    shown = found;
  } catch (error) {
    $("#found").textContent = error instanceof TypeError ? "The server does not answer: is `harvest view --serve` still running?" : error.message;
    return;
  }
  body.setAttribute("aria-busy", "false");
  body.replaceChildren(...shown.rows.map(makeRow));
  const last = first + shown.rows.length;
  const among = !page.live && page.rows.length < page.summary.rows ? ` among the ${count(page.rows.length)} in this file` : "";
  $("#found").textContent = `${plural(shown.total, "row")} found${among}`;
  $("#at").textContent = shown.total ? `${count(first + 1)} to ${count(last)} of ${count(shown.total)}` : "nothing";
  $("#back").disabled = !first;
  $("#on").disabled = last >= shown.total;
  for (const button of document.querySelectorAll("#rows [data-sort]")) {
    const way = query.down ? "descending" : "ascending";
    button.parentElement.setAttribute("aria-sort", query.sort === button.dataset.sort ? way : "none");
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
  const word = row.verdict === "unjudged" ? "" : row.verdict;
  const cells = [cell(`mark ${row.verdict}`, MARKS[row.verdict], make("span", {}, word)), cell("", open), cell("", short(row.gold)), cell("", short(row.said === null ? row.reply : row.said))];
  cells.push(...mass, cell("more number", dollars(row.cost)), cell("more", row.status), cell("more", row.split));
  return make("tr", { class: "row" }, ...cells);
}

async function toggle(button) {
  const line = button.closest("tr");
  const isOpen = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!isOpen));
  if (isOpen) return line.nextElementSibling.remove();
  const cell = make("td");
  line.after(make("tr", { class: "detail" }, cell));
  const row = shown.rows[button.dataset.number];
  if (page.live) row.pictures ||= await ask("pictures", { id: row.id, split: row.split, draw: row.draw }).catch((error) => ({ shown: [], note: error.message }));
  cell.append(makeDetail(row));
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
  add("asked", `${row.bill}, ${row.cost === null ? "price unknown" : dollars(row.cost)}`);
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
  moveFocus([...body.querySelectorAll(".open")], rows);
}

const ACTIONS = {
  j: () => move(1), k: () => move(-1), n: () => turn(1), p: () => turn(-1), "/": () => form.elements.find.focus(),
  Escape: () => body.querySelectorAll("[aria-expanded=true]").forEach(toggle),
};

hearKeys(ACTIONS, "input,select");
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
form.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(restart, TYPING_MS);
});
form.addEventListener("reset", () => setTimeout(restart));
form.addEventListener("submit", (event) => event.preventDefault());
narrow.addEventListener("change", spanDetails);
new ResizeObserver(() => page.summary.spend.length > 1 && showSpend(page.summary.spend)).observe($("#spend"));
$("#back").addEventListener("click", () => turn(-1));
$("#on").addEventListener("click", () => turn(1));

function offer(name, values) {
  const known = new Set([...form.elements[name].options].map((option) => option.value));
  form.elements[name].append(...values.filter((value) => !known.has(value)).map((value) => make("option", { value }, value)));
}

function takeSummary(summary) {
  page.summary = summary;
  offer("split", Object.keys(summary.splits));
  offer("status", Object.keys(summary.statuses));
  showSummary(summary);
}

async function keepUp() {
  const summary = await ask("summary", {}).catch(() => page.summary);
  if (summary.version !== page.summary.version) {
    takeSummary(summary);
    const reading = body.contains(document.activeElement) || body.querySelector(".detail");
    if (!reading) await show(); // what somebody looks at stays
  }
  setTimeout(keepUp, POLL_MS);
}

function start() {
  page.labelled = page.summary.labels.length > 0;
  for (const element of document.querySelectorAll(".labelled")) element.hidden = !page.labelled;
  for (const button of document.querySelectorAll("[data-sort=gold],[data-sort=said]")) button.disabled = !page.labelled;
  $("#rows").classList.toggle("written", !page.labelled);
  takeSummary(page.summary);
  offer("gold", page.summary.labels);
  offer("said", page.summary.labels);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const field = form.elements.namedItem(name);
    if (field && field.type === "checkbox") field.checked = true;
    else if (field) field.value = value;
  }
  show();
  if (page.live) setTimeout(keepUp, POLL_MS);
}

start();
