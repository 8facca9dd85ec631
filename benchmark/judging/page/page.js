"use strict";
// The data is text from results that anybody may have made: it only ever becomes text nodes and encoded addresses.

const DATA = JSON.parse(document.getElementById("data").textContent);
const DASH = "—";
const FADE = 20; // points below the best where the shading ends, as in the figures
const NEAREST = 0.24; // opacity of the shading at the best
const CAPTIONS = {
  accuracy_vs_params: "Mean accuracy against trainable parameters, with the Pareto front",
  tasks: "Every method on every task",
};
const at = (id) => document.getElementById(id);
const state = { board: null, mean: "", group: "", family: "", text: "", limit: Infinity, sort: null, open: new Set(), pair: [] };

/** An element: properties by name (`aria-…`, `data-…` and `for` as attributes), children are elements or plain text. */
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

const fixed = (value, decimals) => (value === null || value === undefined ? DASH : value.toFixed(decimals));
const signed = (value, decimals) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(decimals);
const rate = (value) => value.toExponential().replace("e+", "e");
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
const heads = (list) => list.map(([name, look]) => h("th", { scope: "col", className: look }, name));
const fileOf = (parts) => parts.map(encodeURIComponent).join("/");

function count(n) {
  for (const [unit, size] of [["M", 1e6], ["k", 1e3]]) {
    const value = n / size;
    if (value >= 0.9995) return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + unit;
  }
  return String(n);
}

function duration(seconds) {
  if (seconds === null) return DASH;
  return seconds < 120 ? `${seconds.toFixed(0)} s` : seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Choices of a select: pairs of value and text. */
function fill(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

// ---------------------------------------------------------------------------------------------------------- columns

/** What a row is ordered and judged by: the chosen mean, or the chosen group's. */
const meanColumn = () => columns().find((column) => column.mean);

/** The table's columns: key, title, value of a row, and how it is shown. */
function columns() {
  const { board, group } = state;
  const shown = board.tasks.map((task, place) => ({ task, place })).filter(({ task }) => group === "" || task.group === group);
  const groups = board.groups.map((name, place) => ({ name, place })).filter(({ name }) => group === "" || group === "means" || group === name);
  const [meanKey, meanTitle] = board.means.find(([name]) => name === state.mean);
  const ofGroup = board.groups.indexOf(group);
  return [
    { key: "rank", title: "#", low: true, value: (row) => row.rank, show: (v) => v ?? DASH },
    { key: "label", title: "method", low: true, value: (row) => row.label.toLowerCase(), kind: "method" },
    ofGroup < 0
      ? { key: "mean", title: meanTitle, judged: 2, mean: true, spread: meanKey !== "mean_groups" && board.rows.some((row) => row.std !== null), value: (row) => row.means[meanKey] }
      : { key: "mean", title: `mean of ${group}`, judged: 2, mean: true, value: (row) => row.groups[ofGroup] },
    { key: "params", title: "params", low: true, value: (row) => row.params, show: count },
    { key: "head", title: "+\u00a0head", low: true, value: (row) => row.params_with_head, show: count },
    { key: "lr", title: "lr", low: true, value: (row) => row.lr, show: rate },
    { key: "seeds", title: "seeds", value: (row) => row.seeds, show: String },
    ...(ofGroup < 0 ? groups : []).map(({ name, place }, i) => ({
      key: `group ${name}`, title: name, judged: 2, first: i === 0, value: (row) => row.groups[place],
    })),
    ...shown.map(({ task, place }, i) => ({
      key: `task ${place}`, title: task.name, judged: 1, first: i === 0 || shown[i - 1].task.group !== task.group,
      value: (row) => row.accuracy[place],
    })),
  ];
}

/** Places by the chosen mean among all rows that have it, whatever is filtered; ties share the better one. */
function rank(rows, value) {
  const means = rows.map(value).filter((mean) => mean !== null && mean !== undefined);
  for (const row of rows) {
    const own = value(row);
    row.rank = own === null || own === undefined ? null : 1 + means.filter((mean) => mean > own).length;
  }
}

function ordered(rows, column, descending) {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    const gaps = Number(x === null || x === undefined) - Number(y === null || y === undefined);
    return gaps || (x < y ? -direction : x > y ? direction : 0) || (a.label < b.label ? -1 : 1); // gaps last either way
  });
}

/** The best and second best of a column as printed, over all rows of the board. */
function best(column) {
  const printed = state.board.rows.map(column.value).filter((v) => v !== null && v !== undefined).map((v) => Number(v.toFixed(column.judged)));
  return [...new Set(printed)].sort((a, b) => b - a).slice(0, 2);
}

// ------------------------------------------------------------------------------------------------------------- table

function showTable() {
  const shown = columns();
  const { board, sort } = state;
  rank(board.rows, meanColumn().value);
  const needle = state.text.trim().toLowerCase();
  const kept = board.rows.filter((row) =>
    (state.family === "" || row.family === state.family) && row.params <= state.limit &&
    `${row.label} ${row.spec}`.toLowerCase().includes(needle));
  const by = shown.find((column) => column.key === sort.key) ?? meanColumn();
  at("table").tHead.replaceChildren(h("tr", {},
    h("th", { scope: "col" }, h("span", { className: "quiet", title: "Tick two rows to compare them" }, "A/B")),
    ...shown.map((column) => headCell(column, by))));
  const judged = new Map(shown.filter((column) => column.judged).map((column) => [column.key, best(column)]));
  at("table").tBodies[0].replaceChildren(...ordered(kept, by, sort.descending).flatMap((row, i) => bodyRows(row, i, shown, judged)));
  at("count").textContent = `${kept.length} of ${board.rows.length} methods, sorted by ${by.title}`;
}

function headCell(column, by) {
  const sorted = column.key === by.key ? (state.sort.descending ? "descending" : "ascending") : undefined;
  const sort = () => {
    state.sort = { key: column.key, descending: sorted ? !state.sort.descending : !column.low };
    showTable();
    at("table").querySelector("th[aria-sort] button").focus();
  };
  const look = column.kind === "method" ? "text method" : column.mean ? "mean" : column.first ? "from" : "";
  return h("th", { scope: "col", className: look, "aria-sort": sorted }, h("button", { type: "button", onclick: sort }, breakable(column.title)));
}

function bodyRows(row, number, shown, judged) {
  const expanded = state.open.has(row.label);
  const id = `detail-${number}`;
  const compare = h("input", { type: "checkbox", checked: state.pair.includes(row.label), "aria-label": `compare ${row.label}`, onchange: () => choosePair(row.label) });
  const line = h("tr", { className: "row" }, h("td", {}, compare), ...shown.map((column) => cell(row, column, judged, expanded, id)));
  return expanded ? [line, h("tr", { className: "detail", id }, h("td", { colSpan: shown.length + 1 }, details(row)))] : [line];
}

function cell(row, column, judged, expanded, id) {
  if (column.kind === "method") {
    const toggle = () => {
      if (!state.open.delete(row.label)) state.open.add(row.label);
      showTable();
      [...document.querySelectorAll(".open")].find((button) => button.dataset.label === row.label)?.focus();
    };
    const button = h("button", { type: "button", className: "open", title: row.spec, "aria-expanded": String(expanded), "aria-controls": expanded ? id : undefined, "data-label": row.label, onclick: toggle }, h("span", {}, row.label));
    return h("th", { scope: "row", className: "text method" }, button);
  }
  const value = column.value(row);
  if (!column.judged) return h("td", {}, String(column.show(value)));
  const text = fixed(value, column.judged);
  const [first, second] = judged.get(column.key);
  const mark = text === DASH ? "" : Number(text) === first ? " best" : Number(text) === second ? " second" : "";
  const spread = column.spread ? h("span", { className: "spread" }, row.std === null ? "" : ` ± ${row.std.toFixed(2)}`) : null;
  const td = h("td", { className: `${column.mean ? "mean " : column.first ? "from " : ""}heat` }, h("span", { className: mark.trim() }, text), spread);
  if (text !== DASH) td.style.setProperty("--near", (NEAREST * Math.max(0, 1 - (first - value) / FADE)).toFixed(3));
  return td;
}

/** Hyper-parameters, cost, and each cell with its seed and where it was made. */
function details(row) {
  const { board } = state;
  const facts = [
    ["spec", row.spec], ["family", row.family], ["version", String(row.method_version)], ["arguments", row.args],
    ["time, all tasks", duration(row.seconds)], ["peak memory", row.peak_mb === null ? DASH : `${row.peak_mb.toFixed(0)} MB`], ["device", row.device || DASH],
    ...(row.plugin ? [["plug-in file", row.plugin.slice(0, 12)]] : []),
  ];
  const used = new Set();
  const lines = row.cells.flatMap((cells, place) => cells.length ? cells.map(([seed, accuracy, file, seconds, created, environment], i) => {
    used.add(environment);
    const address = fileOf([...board.folder, board.tasks[place].folder, row.folder, file]);
    return h("tr", {},
      h("td", { className: "text" }, i ? "" : board.tasks[place].name), h("td", {}, String(seed)), h("td", {}, accuracy.toFixed(2)), h("td", {}, duration(seconds)),
      h("td", { className: "text mono" }, h("a", { href: address }, file.replace(/\.json$/, ""))), h("td", { className: "text" }, created.slice(0, 16).replace("T", " ")),
      h("td", { className: "text mono" }, commit(DATA.environments[environment])), h("td", {}, String(environment + 1)));
  }) : [h("tr", {}, h("td", { className: "text" }, board.tasks[place].name), h("td", { className: "text quiet", colSpan: 7 }, "not run, or failed"))]);
  const titles = [["task", "text"], ["seed", ""], ["accuracy", ""], ["training", ""], ["run (JSON)", "text"], ["made, UTC", "text"], ["commit", "text"], ["environment", ""]];
  return h("div", { className: "inside" },
    h("dl", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("div", { className: "cells", tabIndex: 0, role: "region", "aria-label": `runs of ${row.label}` },
      h("table", {}, h("thead", {}, h("tr", {}, heads(titles))), h("tbody", {}, lines))),
    h("div", { className: "note" }, [...used].sort((a, b) => a - b).map((place) => h("div", {}, `Environment ${place + 1}: ${environmentText(DATA.environments[place])}`))));
}

const commit = (environment) => (environment.git_sha ? environment.git_sha.slice(0, 10) + (environment.git_dirty ? " + changes" : "") : DASH);

function environmentText({ device, versions, numerics }) {
  const list = (facts) => Object.entries(facts ?? {}).map(([name, value]) => `${name} ${value}`);
  return [device, ...list(numerics), ...list(versions)].filter(Boolean).join(", ");
}

// -------------------------------------------------------------------------------------------------------- comparison

function choosePair(label) {
  state.pair = state.pair.includes(label) ? state.pair.filter((name) => name !== label) : [...state.pair, label].slice(-2);
  for (const box of document.querySelectorAll(".row input")) box.checked = state.pair.includes(box.getAttribute("aria-label").slice("compare ".length));
  showComparison();
}

function showComparison() {
  const { board, pair } = state;
  const names = board.rows.map((row) => [row.label, row.label]);
  fill(at("first"), [["", "choose a method"], ...names], pair[0] ?? "");
  fill(at("second"), [["", "choose a method"], ...names], pair[1] ?? "");
  const [a, b] = pair.map((label) => board.rows.find((row) => row.label === label));
  at("comparison").replaceChildren(...(a && b ? comparison(a, b) : [h("p", { className: "note" }, "Choose two methods here, or tick two rows of the table.")]));
}

/** A row per task: both accuracies and their difference as a bar, right where A is better. */
function comparison(a, b) {
  const { board } = state;
  const tasks = board.tasks.map((task, i) => ({ name: task.name, x: a.accuracy[i], y: b.accuracy[i] }));
  const both = tasks.filter(({ x, y }) => x !== null && y !== null);
  const widest = Math.max(1, ...both.map(({ x, y }) => Math.abs(x - y)));
  const wins = both.filter(({ x, y }) => x > y).length;
  const losses = both.filter(({ x, y }) => x < y).length;
  const mean = both.reduce((sum, { x, y }) => sum + x - y, 0) / both.length;
  const place = mean > 0 ? "above" : mean < 0 ? "below" : "from";
  const sentence = both.length
    ? `${a.label} is ${Math.abs(mean).toFixed(2)} points ${place} ${b.label} on average over ${both.length} tasks: better on ${wins}, worse on ${losses}, equal on ${both.length - wins - losses}.`
    : `${a.label} and ${b.label} share no task.`;
  const head = h("tr", {}, heads([["task", "text"], [a.label, ""], [b.label, ""], ["difference", ""], ["", "bar"]]));
  const lines = tasks.map(({ name, x, y }) => {
    const known = x !== null && y !== null;
    return h("tr", {}, h("th", { scope: "row", className: "text" }, breakable(name)), h("td", {}, fixed(x, 1)), h("td", {}, fixed(y, 1)),
      h("td", {}, known ? signed(x - y, 1) : DASH), h("td", { className: "bar" }, known ? difference(x - y, widest) : ""));
  });
  return [h("p", { className: "verdict" }, sentence), h("div", { className: "scroll fit" }, h("table", {}, h("thead", {}, head), h("tbody", {}, lines)))];
}

function difference(value, widest) {
  const size = 50 * Math.abs(value) / widest;
  const bar = h("i");
  bar.style.setProperty("--from", `${value < 0 ? 50 - size : 50}%`);
  bar.style.setProperty("--size", `${size}%`);
  bar.style.setProperty("--tone", value < 0 ? "var(--against)" : "var(--accent)");
  return h("div", { "aria-hidden": "true" }, h("i", { className: "zero" }), bar);
}

// ------------------------------------------------------------------------------------------------- figures and claims

let addresses = [];

function showFigures() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  const figures = Object.entries(state.board.figures);
  addresses = figures.map(([, svg]) => URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })));
  at("figures").replaceChildren(...figures.map(([name], i) => {
    const caption = CAPTIONS[name] ?? name.replaceAll("_", " ");
    return h("figure", {}, h("img", { src: addresses[i], alt: `${caption}; the table above holds the numbers` }), h("figcaption", {}, caption));
  }));
}

function showClaims() {
  const { reason, lines, sources } = state.board.claims;
  at("claim").parentElement.hidden = Boolean(reason);
  if (reason) return at("claims").replaceChildren(h("p", { className: "note" }, `Nothing to show: ${reason}.`));
  const found = lines.map((line) => [line.label, ...line.columns[at("claim").value]]).filter(([, measured, low]) => measured !== null || low !== null);
  const numbers = found.flatMap(([, ...values]) => values.slice(0, 3)).filter((value) => value !== null);
  const [low, high] = [Math.floor(Math.min(...numbers)), Math.ceil(Math.max(...numbers))];
  const head = [["method", "text"], ["measured", ""], ["published", ""], ["rows", ""], [`${low} to ${high} %`, "bar text"]];
  const body = found.map(([label, measured, from, to, rows]) => {
    const ends = [...new Set([from, to].map((value) => fixed(value, 1)))];
    return h("tr", {}, h("th", { scope: "row", className: "text" }, label), h("td", {}, fixed(measured, 1)), h("td", {}, ends.join(" to ")),
      h("td", {}, String(rows ?? 0)), h("td", { className: "bar" }, range(measured, from, to, low, high)));
  });
  return at("claims").replaceChildren(
    h("p", { className: "note" }, `${DATA.caution} Bar: published; dot: measured.`),
    h("div", { className: "scroll fit" }, h("table", {}, h("thead", {}, h("tr", {}, heads(head))), h("tbody", {}, body))),
    h("ul", { className: "sources" }, sources.map((s) => h("li", {}, `${s.title}, ${s.place}: ${s.reference}. ${s.pretrained}; reported: ${s.selection}; head: ${s.head}.`))));
}

/** What papers print as a bar, what was measured as a dot. */
function range(measured, from, to, low, high) {
  const place = (value) => `${(100 * (value - low) / (high - low)).toFixed(2)}%`;
  const marks = [];
  if (from !== null) marks.push([h("i", { className: "claimed" }), place(from), `${(100 * (to - from) / (high - low)).toFixed(2)}%`]);
  if (measured !== null) marks.push([h("i", { className: "dot" }), place(measured), ""]);
  for (const [mark, start, size] of marks) {
    mark.style.setProperty("--from", start);
    if (size) mark.style.setProperty("--size", size);
  }
  return h("div", { "aria-hidden": "true" }, marks.map(([mark]) => mark));
}

// ----------------------------------------------------------------------------------------------------------- controls

function showBoard(board) {
  Object.assign(state, { board, mean: board.means[0][0], group: "", family: "", text: "", limit: Infinity, sort: { key: "mean", descending: true }, open: new Set(), pair: [] });
  const backbone = at("backbone").value;
  fill(at("board"), DATA.boards.filter((b) => backbone === "" || b.backbone === backbone).map((b) => [b.slug, `${b.title} (${b.rows.length} methods)`]), board.slug);
  at("facts").replaceChildren(...board.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  at("means").replaceChildren(at("means").firstElementChild, ...board.means.map(([name, title]) => h("label", {},
    h("input", { type: "radio", name: "mean", value: name, checked: name === state.mean, onchange: () => { state.mean = name; at("claim").value = name; showTable(); showClaims(); } }), h("span", {}, title))));
  fill(at("group"), [["", "all tasks"], ...board.groups.map((name) => [name, name]), ["means", "means only"]], "");
  const families = DATA.families.filter((name) => board.rows.some((row) => row.family === name));
  fill(at("family"), [["", "all"], ...families.map((name) => [name, name])], "");
  fill(at("claim"), [...board.means, ...board.tasks.map((task) => [task.name, task.name])], state.mean);
  at("search").value = "";
  const sizes = [...new Set(board.rows.map((row) => row.params))].sort((a, b) => a - b);
  at("limit").max = sizes.length - 1;
  at("limit").value = sizes.length - 1;
  at("limit").oninput = () => showLimit(sizes[at("limit").value]);
  at("limit-text").textContent = count(sizes.at(-1));
  const folder = `boards/${encodeURIComponent(board.slug)}`;
  at("links").replaceChildren(...[["leaderboard.csv", "CSV"], ["table.md", "Markdown"], ["table.tex", "LaTeX"]].map(([file, name]) => h("a", { href: `${folder}/${file}` }, name)));
  showTable();
  showComparison();
  showFigures();
  showClaims();
}

function showLimit(params) {
  state.limit = params;
  at("limit-text").textContent = count(params);
  at("limit").setAttribute("aria-valuetext", count(params));
  showTable();
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = theme === "dark" ? "Light" : "Dark";
  at("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

function start() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  showTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", () => showTheme(system.matches ? "dark" : "light"));
  at("theme").onclick = () => showTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  fill(at("backbone"), [["", "all"], ...[...new Set(DATA.boards.map((board) => board.backbone))].map((name) => [name, name])], "");
  at("backbone").onchange = () => showBoard(DATA.boards.find((board) => ["", board.backbone].includes(at("backbone").value)));
  at("board").onchange = () => { location.hash = at("board").value; };
  at("controls").onsubmit = (event) => event.preventDefault();
  at("group").onchange = () => { state.group = at("group").value; state.sort = { key: "mean", descending: true }; showTable(); };
  at("family").onchange = () => { state.family = at("family").value; showTable(); };
  at("claim").onchange = showClaims;
  at("search").oninput = () => { state.text = at("search").value; showTable(); };
  for (const [place, id] of ["first", "second"].entries()) {
    at(id).onchange = () => { state.pair[place] = at(id).value; showComparison(); showTable(); };
  }
  const fromAddress = () => DATA.boards.find((board) => board.slug === decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", () => { const board = fromAddress(); if (board) showBoard(board); });
  const cells = (board) => board.rows.length * board.tasks.length;
  showBoard(fromAddress() ?? DATA.boards.reduce((most, board) => (cells(board) > cells(most) ? board : most)));
}

start();
