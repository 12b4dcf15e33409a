"""The report's one style sheet and one script."""

STYLE = """
:root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--ink:#1b1e23;--soft:#5c636e;--rule:#e3e4e6;--stripe:#f5f6f6;
--accent:#2563c9;--muted:#a9b0ba;--good:#1b7f4b;--bad:#c0362c;--h1:#2563c9;--h2:#1b7f4b;--h3:#b3611c;--h4:#8a4bb5}
@media (prefers-color-scheme:dark){:root{--page:#15171a;--card:#1c1f23;--ink:#e7e9ec;--soft:#9aa2ad;--rule:#31353b;
--stripe:#22262b;--accent:#6ea2f5;--muted:#6b737e;--good:#57c18a;--bad:#f0776c;--h1:#6ea2f5;--h2:#57c18a;--h3:#e2a063;
--h4:#c294e6}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main,header{max-width:66rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:3rem}
main{padding-bottom:4rem}
h1{font-size:1.75rem;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;line-height:1.3;font-weight:600;margin:0 0 1rem;overflow-wrap:anywhere}
section{border-top:1px solid var(--rule);margin-top:2.5rem;padding-top:1.75rem}
p{margin:0 0 1rem;max-width:42rem;overflow-wrap:anywhere}
.subtitle{color:var(--soft);margin:.4rem 0 0}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin-top:1.25rem;font-size:.9rem}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:2px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:1rem 1.5rem;margin:0 0 1.5rem}
.facts dt{font-size:.8rem;color:var(--soft);overflow-wrap:anywhere}
.facts dd{margin:0;font-size:1.3rem;font-weight:600;line-height:1.35;overflow-wrap:anywhere}
figure{margin:0 0 1.75rem}
figcaption{color:var(--soft);font-size:.86rem;line-height:1.45;margin-top:.6rem;max-width:42rem;overflow-wrap:anywhere}
.table figcaption{margin:0 0 .6rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.25rem}
.plot{overflow-x:auto;min-width:0}
.plot svg{display:block;max-width:100%;height:auto}
.wide svg{min-width:34rem}
.scroll{overflow:auto;width:fit-content;max-width:100%;max-height:44rem;
border:1px solid var(--rule);border-radius:6px;background:var(--card)}
table{border-collapse:separate;border-spacing:0;min-width:min(100%,22rem);font-size:.875rem;line-height:1.4}
th,td{padding:.42rem .8rem;text-align:left;border-bottom:1px solid var(--rule);vertical-align:baseline;
white-space:nowrap}
tbody tr:last-child td{border-bottom:0}
tbody tr:nth-child(even){background:var(--stripe)}
th{position:sticky;top:0;background:var(--card);color:var(--soft);font-weight:600;white-space:nowrap;z-index:1}
th button{all:unset;cursor:pointer;color:inherit}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th button::after{content:"\\2195";opacity:.35;margin-left:.35em}
th[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\2193";opacity:1}
th[aria-sort] button{color:var(--ink)}
.n{text-align:right;font-variant-numeric:tabular-nums}
.w{white-space:normal;overflow-wrap:anywhere;min-width:14rem;max-width:26rem}
.m{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.82rem;
white-space:normal;overflow-wrap:anywhere;min-width:11rem;max-width:24rem}
.off{color:var(--soft)}
.yes{color:var(--good)}
.no{color:var(--bad);font-weight:600}
.bullets{margin:0 0 1rem;padding-left:1.1rem;max-width:42rem;overflow-wrap:anywhere}
.files{list-style:none;margin:0;padding:0;display:grid;gap:.35rem}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
svg .name{font-size:12.5px;font-weight:600;fill:var(--ink)}
svg .unit{font-size:11.5px}
svg .value{font-size:11.5px;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .frame,svg .axis{fill:none;stroke:var(--rule)}
svg .grid{fill:none;stroke:var(--rule);stroke-width:.6}
svg .bar,svg .fill{fill:var(--accent)}
svg .fill{opacity:.8}
svg .quiet{fill:var(--muted)}
svg .outline{fill:none;stroke:var(--ink);stroke-width:1.3;stroke-linejoin:round}
svg .rest,svg .front{fill:none;stroke-linecap:round}
svg .rest{stroke:var(--muted);stroke-width:4.2;opacity:.75}
svg .front{stroke:var(--accent);stroke-width:5.2}
svg .whisker{fill:none;stroke:var(--ink);stroke-width:1.2}
svg .glyph{font-size:10px;font-weight:700}
svg .h1{fill:var(--h1)}svg .h2{fill:var(--h2)}svg .h3{fill:var(--h3)}svg .h4{fill:var(--h4)}svg .h0{fill:var(--soft)}
@media (max-width:40rem){header{padding-top:1.75rem}body{font-size:15px}section{margin-top:2rem;padding-top:1.4rem}
main,header{padding-left:1rem;padding-right:1rem}th,td{padding:.4rem .5rem}.w{min-width:9.5rem}}
@media print{.scroll{max-height:none;overflow:visible}th{position:static}}
"""

SCRIPT = """
"use strict";
document.querySelectorAll("table.sortable").forEach(function (table) {
  var body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach(function (head, column) {
    var numeric = head.classList.contains("n"), button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener("click", function () {
      var before = head.getAttribute("aria-sort");
      var sign = before ? (before === "ascending" ? -1 : 1) : numeric ? -1 : 1;
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      var keyed = Array.from(body.rows).map(function (row) {
        var text = row.cells[column].textContent;
        return { row: row, key: numeric ? parseFloat(text) : text };
      });
      keyed.sort(function (a, b) {
        if (!numeric) return sign * (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
        if (isNaN(a.key) || isNaN(b.key)) return isNaN(a.key) - isNaN(b.key);
        return sign * (a.key - b.key);
      });
      keyed.forEach(function (item) { body.appendChild(item.row); });
    });
  });
});
"""
