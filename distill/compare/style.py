"""The report's style sheet. Light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark; --page:#fff; --ink:#1c2430; --soft:#5b6675; --line:#dfe4ea; --card:#f6f8fa;
  --teacher:#0b6bcb; --undistilled:#c2410c; --hardest:#7c3aed; --control:#8b96a5; --baseline:#0f766e;
  --good:#137a3f; --bad:#b42318; }
@media (prefers-color-scheme: dark) { :root { --page:#11161d; --ink:#e6eaf0; --soft:#9aa6b5; --line:#2b3440;
  --card:#19212b; --teacher:#5aaefc; --undistilled:#fb923c; --hardest:#b794f6; --control:#7d8998; --baseline:#2dd4bf;
  --good:#4ade80; --bad:#f97066; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui,sans-serif; }
main { max-width:920px; margin:0 auto; padding:32px 20px 64px; }
h1 { font-size:1.6rem; line-height:1.25; margin:0 0 4px; }
h2 { font-size:1.2rem; margin:44px 0 8px; padding-top:16px; border-top:1px solid var(--line); }
p { margin:8px 0; } .soft { color:var(--soft); } small { color:var(--soft); }
.verdict { background:var(--card); border-left:4px solid var(--control); border-radius:6px; padding:12px 16px;
  margin:12px 0; }
.verdict b { display:block; } .verdict.good { border-color:var(--good); } .verdict.good b { color:var(--good); }
.verdict.bad { border-color:var(--bad); } .verdict.bad b { color:var(--bad); }
.verdict.doubt { border-color:var(--hardest); } .verdict.doubt b { color:var(--hardest); }
.wide { overflow-x:auto; }
figure { margin:16px 0 24px; min-width:0; } figcaption { color:var(--soft); font-size:.9rem; margin:4px 0; }
main { counter-reset:table chart; }
.table figcaption::before { counter-increment:table; content:"Table " counter(table) ". "; font-weight:600; }
.chart figcaption::before { counter-increment:chart; content:"Figure " counter(chart) ". "; font-weight:600; }
nav ol { columns:15rem auto; margin:8px 0; padding-left:1.6em; } a { color:var(--teacher); }
.beside { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr)); gap:0 32px; }
.forest ul { list-style:none; margin:8px 0 0; padding:0; }
.forest li { display:flex; flex-wrap:wrap; justify-content:space-between; gap:0 12px; font-size:.85rem;
  font-variant-numeric:tabular-nums; overflow-wrap:anywhere; margin-bottom:4px; }
svg { width:100%; display:block; font:13px system-ui,sans-serif; }
.chart > svg[viewBox] { max-width:600px; height:auto; }
svg text { fill:var(--ink); } svg .tick { fill:var(--soft); font-size:12px; }
svg .grid { stroke:var(--line); } svg .zero { stroke:var(--soft); stroke-dasharray:4 3; }
svg .whisker { stroke-width:2.5; } svg .line { fill:none; stroke-width:1.5; }
svg .line.teacher,svg .line.undistilled,svg .line.baseline,svg .line.hardest { stroke-width:2.5; }
.teacher { --c:var(--teacher); } .undistilled { --c:var(--undistilled); } .hardest { --c:var(--hardest); }
.control { --c:var(--control); } .baseline { --c:var(--baseline); } .ceiling { --c:var(--soft); }
svg .line.second { stroke-dasharray:8 4; } svg .line.third { stroke-dasharray:2 3; }
svg .line.ceiling { stroke-dasharray:6 4; } svg .band { fill:var(--c); opacity:.14; }
svg .whisker,svg .line { stroke:var(--c); } svg .dot { fill:var(--c); }
.legend { list-style:none; display:flex; flex-wrap:wrap; gap:4px 18px; margin:6px 0; padding:0; font-size:.9rem; }
.key { display:inline-block; width:22px; border-top:3px solid var(--c); margin-right:6px; vertical-align:middle; }
.key.second,.key.ceiling { border-top-style:dashed; } .key.third { border-top-style:dotted; }
table { border-collapse:collapse; width:100%; font-size:.875rem; font-variant-numeric:tabular-nums; }
th,td { text-align:right; padding:5px 8px; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--soft); font-weight:600; white-space:normal; vertical-align:bottom; }
@media (max-width:560px) { th,td { padding:5px 6px; } }
th.text,td.text { text-align:left; } th:first-child,td:first-child { padding-left:0; }
.beside table { width:auto; }
blockquote { margin:12px 0; padding:2px 0 2px 16px; border-left:4px solid var(--line); }
.glossary dt { font-weight:600; margin-top:8px; } .glossary dd { margin:0 0 0 1.2em; }
.copy pre { user-select:all; } .copy p { margin:8px 0 0; }
.rows { display:grid; grid-template-columns:repeat(auto-fill,minmax(250px,1fr)); gap:14px; }
.row { background:var(--card); border-radius:6px; padding:12px; font-size:.9rem; overflow-wrap:anywhere; }
.row img { width:100%; border:1px solid var(--line); border-radius:4px; background:#fff; }
.row dl { display:grid; grid-template-columns:auto 1fr; gap:2px 10px; margin:8px 0 0; } .row dt { color:var(--soft); }
@media (prefers-color-scheme: dark) { .row img { filter:brightness(.8); } }
.row dd { margin:0; } .right { color:var(--good); } .wrong { color:var(--bad); }
details { margin:8px 0; } summary { cursor:pointer; } pre { overflow-x:auto; background:var(--card); padding:12px;
  border-radius:6px; font-size:.8rem; } code { overflow-wrap:anywhere; font-size:.85em; }
"""
