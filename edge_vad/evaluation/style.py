"""The style sheet of the report: neutral, light and dark, readable on a phone."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --page: #f6f7f8; --card: #ffffff; --ink: #1d2329; --soft: #5d6873; --rule: #dde1e5;
  --a: #1f6394; --b: #b0762a; --truth: #e8b04a40; --hit: #2c8a68; --false: #c8423b; }
@media (prefers-color-scheme: dark) { :root { --page: #14181b; --card: #1c2226; --ink: #e4e8eb; --soft: #98a3ac;
  --rule: #323a41; --a: #6fb4e3; --b: #dda65a; --truth: #e8b04a33; --hit: #4fb892; --false: #ea7169; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .88rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.8rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem .9rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .82rem; line-height: 1.35; }
.two { display: grid; align-items: start; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .7rem; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px; }
figcaption { margin-top: .4rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
td.sub { padding-left: 1.1rem !important; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .a { stroke: var(--a); }
.b { stroke: var(--b); stroke-dasharray: 5 3; }
.threshold { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; } .grid { stroke: var(--rule); }
.frame { fill: none; stroke: var(--rule); } .bar { fill: var(--a); }
.point { fill: var(--card); stroke: var(--a); stroke-width: 2; }
.truth { fill: var(--truth); } .hit { fill: var(--hit); } .false { fill: var(--false); }
.key { display: inline-block; width: .9em; height: .7em; border-radius: 2px; margin: 0 .3em 0 .8em; }
.key:first-child { margin-left: 0; }
.key.truth { background: var(--truth); border: 1px solid var(--rule); }
.key.hit { background: var(--hit); } .key.false { background: var(--false); }
.ramp { width: 4em; background: linear-gradient(90deg, #ffdd33, #d61818); }
.outline { border: 2px solid #40b8d8; }
.ring { width: .8em; height: .8em; border-radius: 50%; border: 2px solid currentColor; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""
