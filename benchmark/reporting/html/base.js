"use strict";
// Results may come from anybody, so their text only becomes text nodes and encoded addresses.

const DATA = JSON.parse(document.getElementById("data").textContent);
const DASH = "—";
const WITHOUT_STD = ["mean_groups"]; // the standard deviation is that of the mean over all tasks
const FADE = 20; // points below the best at which the shading ends, as in the figures
const NEAREST = 0.24; // opacity of the shading of the best
const CAPTIONS = {
  groups: "Means of the groups of tasks",
  ranks: "Average ranks over tasks, with Nemenyi's critical difference",
  shift: "Accuracy on corrupted and on clean images",
  curves: "Training loss over the course of training",
};
const at = (id) => document.getElementById(id);
const state = {}; // leaderboard, mean, group, family, text, limit, sort, open rows, chosen rows, x, y, published: set by showLeaderboard

/** Create an element; `aria-…`, `data-…` and `for` become attributes, children are elements or plain text. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "for" || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const TIE = 1e-9; // makes decimal ties round up; tables.py uses the same value
const fixed = (value, decimals) => (value === null || value === undefined ? DASH : (value + TIE).toFixed(decimals));
const ROUNDING = 1e-7; // differences below it are rounding; tables.py uses the same value
const above = (a, b) => a > b + ROUNDING;
/** Format a difference; more digits if rounding would hide on which side of zero it is. */
const signed = (value, decimals) => {
  if (Math.abs(value) < ROUNDING) return "±0.0";
  const size = fixed(Math.abs(value), decimals);
  return (value > 0 ? "+" : "−") + (Number(size) ? size : Math.abs(value).toPrecision(1));
};
/** Format a learning rate, as tables.py does; null if tasks have their own. */
const rate = (value) => (known(value) ? Number(value.toPrecision(3)).toExponential().replace("e+", "e") : "per task");
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
const known = (value) => value !== null && value !== undefined;
const td = (look, ...content) => h("td", { className: look }, ...content);

/** Create a table from headings [text, class] and rows. */
function table(titles, rows) {
  const head = titles.map(([name, look = ""]) => h("th", { scope: "col", className: look }, name));
  return h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
}

const pluralize = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Format a number of parameters with at most three digits, as tables.py does. */
function count(n) {
  for (const [unit, size] of [["M", 1e6], ["k", 1e3]]) {
    const value = n / size;
    if (value >= 0.9995) return fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + unit;
  }
  return String(n);
}

function duration(seconds) {
  if (seconds === null) return DASH;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Fill a select with choices [value, text]. */
function fill(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
