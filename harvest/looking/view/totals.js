const FEW_LABELS = 5;

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
  $("#reading").hidden = !confusion;
  if (!confusion) return;
  table.classList.toggle("many", confusion.labels.length > FEW_LABELS);
  const left = confusion.left_out ? ` The labels that are most often confused: ${plural(confusion.left_out, "row")} of others are left out.` : "";
  $("#reading").textContent = `A line is the right label, a column the teacher's. A number shows its rows below.${left}`;
  const most = Math.max(1, ...confusion.rows.flat());
  const head = confusion.labels.map((label) => make("th", { scope: "col", title: label }, label));
  const lines = confusion.rows.map((counts, line) => {
      const cells = counts.map((value, column) => {
      const pair = { type: "button", "data-gold": confusion.labels[line], "data-said": confusion.labels[column] };
      const cell = make("td", column === line ? { class: "same" } : {}, value ? make("button", pair, count(value)) : "");
      cell.style.background = `rgb(var(--shade) / ${0.5 * value / most})`;
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row", title: confusion.labels[line] }, confusion.labels[line]), ...cells);
  });
  table.replaceChildren(make("tr", {}, make("td"), ...head), ...lines);
}

function makeTicks(most) {
  const magnitude = 10 ** Math.floor(Math.log10(most / 2));
  const step = magnitude * ([5, 2].find((times) => times * magnitude <= most / 2) || 1);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => Number((index * step).toPrecision(3)));
}

function showSpend(points) {
  const width = $("#spend").clientWidth || 600;
  const [left, right, top, bottom] = [64, width - 8, 10, 205];
  const [start, end, most] = [points[0][0], points[points.length - 1][0], points[points.length - 1][1]];
  const x = (at) => left + ((at - start) / (end - start || 1)) * (right - left);
  const y = (spent) => bottom - (spent / most) * (bottom - top);
  const steps = points.map(([at, spent], i) => (i ? `H${x(at).toFixed(1)}V${y(spent).toFixed(1)}` : `M${x(at).toFixed(1)},${y(spent).toFixed(1)}`));
  const moment = (at) => new Date(at * 1000).toISOString().replace("T", " ").slice(0, 16);
  const parts = makeTicks(most).flatMap((tick) => [
    draw("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
    draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, "$" + tick),
  ]);
  parts.push(draw("text", { x: left, y: bottom + 22 }, moment(start)), draw("text", { x: right, y: bottom + 22, "text-anchor": "end" }, moment(end)));
  $("#spend").replaceChildren(...parts, draw("path", { class: "line", d: steps.join("") }));
  $("#spend").setAttribute("viewBox", `0 0 ${width} 240`);
  $("#spend").setAttribute("aria-label", `Spend over time: ${dollars(most)} from ${moment(start)} to ${moment(end)} UTC`);
}
