"use strict";
// Results may come from anybody, so their text only becomes text nodes and encoded addresses.

const DATA = JSON.parse(document.getElementById("data").textContent);
const DASH = "—";
const WITHOUT_STD = ["mean_groups"]; // the standard deviation is that of the mean over all tasks
const FADE = 20; // points below the best at which the shading ends, as in the figures
const NEAREST = 0.24; // opacity of the shading of the best
const CAPTIONS = {
  accuracy_vs_params: "Mean accuracy against trainable parameters, with the Pareto front",
  accuracy_vs_time: "Mean accuracy against training time, with the Pareto front",
  tasks: "Every method on every task",
  groups: "Means of the groups of tasks",
  ranks: "Average ranks over tasks, with Nemenyi's critical difference",
  curves: "Training loss over the course of training",
};
const at = (id) => document.getElementById(id);
const state = {}; // leaderboard, mean, group, family, text, limit, sort, open rows, pair, published: set by showLeaderboard

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
const signed = (value, decimals) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(decimals);
const rate = (value) => value.toExponential().replace("e+", "e");
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

// ---------------------------------------------------------------------------------------------------------- columns

/** Return the column that ranks rows: the selected mean, or the mean of the selected group. */
const meanColumn = () => columns().find((column) => column.mean);

/** Return the columns of the table: key, title, value of a row, and its format. */
function columns() {
  const { leaderboard, group } = state;
  const shown = leaderboard.tasks.map((task, place) => ({ task, place })).filter(({ task }) => ["", task.group].includes(group));
  const ofGroup = leaderboard.groups.indexOf(group);
  const groups = ofGroup < 0 ? leaderboard.groups : [];
  const [meanKey, meanTitle] = leaderboard.means.find(([name]) => name === state.mean);
  const std = !WITHOUT_STD.includes(meanKey) && leaderboard.rows.some((row) => row.std !== null);
  return [
    { key: "rank", title: "#", low: true, value: (row) => row.rank, show: (v) => v ?? DASH },
    { key: "label", title: "method", low: true, value: (row) => row.label.toLowerCase(), kind: "method" },
    ofGroup < 0
      ? { key: "mean", title: meanTitle, decimals: 2, mean: true, std, value: (row) => row.means[meanKey] }
      : { key: "mean", title: `mean of ${group}`, decimals: 2, mean: true, value: (row) => row.groups[ofGroup] },
    ...(ofGroup < 0 && leaderboard.common
      ? [{ key: "common", title: leaderboard.common, decimals: 2, value: (row) => row.means.mean_common }] : []),
    { key: "params", title: "params", low: true, value: (row) => row.params, show: count },
    { key: "head", title: "+\u00a0head", low: true, value: (row) => row.params_with_head, show: count },
    { key: "lr", title: "lr", low: true, value: (row) => row.lr, show: rate },
    { key: "seeds", title: "seeds", value: (row) => row.seeds, show: String },
    ...groups.map((name, i) => ({
      key: `group ${name}`, title: name, decimals: 2, first: i === 0, value: (row) => row.groups[i],
    })),
    ...shown.map(({ task, place }, i) => ({
      key: `task ${place}`, title: task.name, decimals: 1, first: i === 0 || shown[i - 1].task.group !== task.group,
      value: (row) => row.accuracy[place],
    })),
    ...leaderboard.costs.map(([title, low], i) => ({
      key: `cost ${i}`, title, low, first: i === 0, value: (row) => row.costs[i], show: (v) => (known(v) ? Number(v.toPrecision(3)).toLocaleString("en") : DASH),
    })),
  ];
}

/** Set the rank of all rows by the selected mean, ignoring filters; ties share the better rank. */
function rank(rows, value) {
  const means = rows.map(value).filter(known);
  for (const row of rows) {
    row.rank = known(value(row)) ? 1 + means.filter((mean) => mean > value(row)).length : null;
  }
}

function ordered(rows, column, descending) {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    const gaps = Number(!known(x)) - Number(!known(y));
    return gaps || (x < y ? -direction : x > y ? direction : 0); // gaps are last in both directions; ties keep the report's order
  });
}

/** Return the best and second best printed value of a column over all rows of the leaderboard. */
function best(column) {
  const printed = state.leaderboard.rows.map(column.value).filter(known).map((value) => Number(fixed(value, column.decimals)));
  return [...new Set(printed)].sort((a, b) => b - a).slice(0, 2);
}

// ------------------------------------------------------------------------------------------------------------- table

function showTable() {
  const shown = columns();
  const { leaderboard, sort } = state;
  rank(leaderboard.rows, meanColumn().value);
  const needle = state.text.trim().toLowerCase();
  const filtered = leaderboard.rows.filter((row) =>
    (state.family === "" || row.family === state.family) && row.params <= state.limit &&
    `${row.label} ${row.spec}`.toLowerCase().includes(needle));
  const by = shown.find((column) => column.key === sort.key) ?? meanColumn();
  at("table").tHead.replaceChildren(h("tr", {},
    h("th", { scope: "col" }, h("span", { className: "quiet", title: "Select two rows to compare them" }, "A/B")),
    ...shown.map((column) => headCell(column, by))));
  const bestValues = new Map(shown.filter((column) => column.decimals).map((column) => [column.key, best(column)]));
  at("table").tBodies[0].replaceChildren(...ordered(filtered, by, sort.descending).flatMap((row, i) => bodyRows(row, i, shown, bestValues)));
  at("count").textContent = `${filtered.length} of ${pluralize(leaderboard.rows.length, "method")}, sorted by ${by.title}`;
}

function headCell(column, by) {
  const sorted = column.key === by.key ? (state.sort.descending ? "descending" : "ascending") : undefined;
  const sort = () => {
    state.sort = { key: column.key, descending: sorted ? !state.sort.descending : !column.low };
    showTable();
    at("table").querySelector("th[aria-sort] button").focus();
  };
  const look = column.kind === "method" ? "text method" : column.mean ? "mean" : column.first ? "from" : "";
  const button = h("button", { type: "button", onclick: sort }, breakable(column.title));
  return h("th", { scope: "col", className: look, "aria-sort": sorted }, button);
}

function bodyRows(row, number, shown, bestValues) {
  const expanded = state.open.has(row.label);
  const id = `detail-${number}`;
  const tick = h("input", {
    type: "checkbox", checked: state.pair.includes(row.label), onchange: () => choosePair(row.label),
    "aria-label": `compare ${row.label}`, "data-label": row.label,
  });
  const line = h("tr", { className: "row" }, td("", tick), ...shown.map((column) => cell(row, column, bestValues, expanded, id)));
  return expanded ? [line, h("tr", { className: "detail", id }, h("td", { colSpan: shown.length + 1 }, details(row)))] : [line];
}

function cell(row, column, bestValues, expanded, id) {
  if (column.kind === "method") {
    const toggle = () => {
      if (!state.open.delete(row.label)) state.open.add(row.label);
      showTable();
      [...document.querySelectorAll(".open")].find((button) => button.dataset.label === row.label)?.focus();
    };
    const button = h("button", {
      type: "button", className: "open", title: row.spec, onclick: toggle,
      "aria-expanded": String(expanded), "aria-controls": expanded ? id : undefined, "data-label": row.label,
    }, h("span", {}, row.label));
    return h("th", { scope: "row", className: "text method" }, button);
  }
  const value = column.value(row);
  if (!column.decimals) return td("", String(column.show(value)));
  const text = fixed(value, column.decimals);
  const [first, second] = bestValues.get(column.key);
  const mark = text === DASH ? "" : Number(text) === first ? "best" : Number(text) === second ? "second" : "";
  const std = column.std ? h("span", { className: "std" }, row.std === null ? "" : ` ± ${fixed(row.std, 2)}`) : null;
  const shaded = td(`heat ${column.mean ? "mean" : column.first ? "from" : ""}`, h("span", { className: mark }, text), std);
  if (text !== DASH) shaded.style.setProperty("--near", (NEAREST * Math.max(0, 1 - (first - value) / FADE)).toFixed(3));
  return shaded;
}

/** Return the details of a row: hyper-parameters, cost and every run. */
function details(row) {
  const { leaderboard } = state;
  const facts = [
    ["spec", row.spec], ["epochs", row.epochs], ["family", row.family], ["evidence", row.evidence || DASH], ["version", String(row.method_version)], ["arguments", row.args],
    ["time, all tasks", duration(row.seconds)], ["peak memory", known(row.peak_mb) ? `${row.peak_mb.toFixed(0)} MB` : DASH],
    ["device", row.device || DASH], ...(row.plugin ? [["plug-in file", row.plugin.slice(0, 12)]] : []),
  ];
  const used = new Set(row.runs.flat().map((run) => run.at(-1)));
  const environments = [...used].sort((a, b) => a - b).map((place) => h("div", {}, `Environment ${place + 1}: ${environmentText(place)}`));
  const titles = [
    ["task", "text"], ["seed"], ["accuracy"], ["95 % over images"], ["training"],
    ["run ID (JSON)", "text"], ["created, UTC", "text"], ["commit", "text"], ["environment"],
  ];
  const lines = row.runs.flatMap((runs, place) => (runs.length ? runs.map((run, i) => runLine(row, place, run, i)) : [gapLine(place)]));
  return h("div", { className: "inside" },
    h("dl", {}, facts.map(fact)),
    h("div", { className: "runs", tabIndex: 0, role: "region", "aria-label": `runs of ${row.label}` }, table(titles, lines)),
    h("div", { className: "note" }, environments));
}

const fact = ([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

/** Return the line of a run; only the first seed of a task shows its name. */
function runLine(row, place, [seed, accuracy, file, seconds, created, environment], i) {
  const { leaderboard } = state;
  const task = leaderboard.tasks[place];
  const address = [...leaderboard.folder, task.folder, row.folder, file].map(encodeURIComponent).join("/");
  const { git_sha: commit, git_dirty: changed } = DATA.environments[environment];
  return h("tr", {},
    td("text", i ? "" : task.name), td("", String(seed)), td("", accuracy.toFixed(2)), td("quiet", overImages(accuracy / 100, task.images)), td("", duration(seconds)),
    td("text mono", h("a", { href: address }, file.replace(/\.json$/, ""))), td("text", created.slice(0, 16).replace("T", " ")),
    td("text mono", commit ? commit.slice(0, 10) + (changed ? " + changes" : "") : DASH), td("", String(environment + 1)));
}

/** Return Wilson's interval of a run over test images, or a dash if their number is unknown. */
function overImages(accuracy, sizes) {
  const images = sizes.find((size) => Math.abs(accuracy * size - Math.round(accuracy * size)) < 6e-6 * size);
  if (!images) return DASH;
  const square = DATA.wilson ** 2, middle = accuracy + square / (2 * images);
  const half = DATA.wilson * Math.sqrt(accuracy * (1 - accuracy) / images + square / (4 * images * images));
  return [middle - half, middle + half].map((end) => (100 * end / (1 + square / images)).toFixed(1)).join(" to ");
}

const gapLine = (place) =>
  h("tr", {}, td("text", state.leaderboard.tasks[place].name), h("td", { className: "text quiet", colSpan: 8 }, "not run, or failed"));

function environmentText(place) {
  const { device, versions, numerics } = DATA.environments[place];
  const list = (facts) => Object.entries(facts ?? {}).map(([name, value]) => `${name} ${value}`);
  return [device, ...list(numerics), ...list(versions)].filter(Boolean).join(", ");
}

// -------------------------------------------------------------------------------------------------------- comparison

function choosePair(label) {
  state.pair = state.pair.includes(label) ? state.pair.filter((name) => name !== label) : [...state.pair, label].slice(-2);
  for (const tick of document.querySelectorAll(".row input")) tick.checked = state.pair.includes(tick.dataset.label);
  showComparison();
}

function showComparison() {
  const { leaderboard, pair } = state;
  const names = leaderboard.rows.map((row) => [row.label, row.label]);
  fill(at("first"), [["", "choose a method"], ...names], pair[0] ?? "");
  fill(at("second"), [["", "choose a method"], ...names], pair[1] ?? "");
  const [a, b] = pair.map((label) => leaderboard.rows.find((row) => row.label === label));
  const hint = h("p", { className: "note" }, "Choose two methods here, or select two rows of the table.");
  at("comparison").replaceChildren(...(a && b ? comparison(a, b) : [hint]));
}

/** Return a table of both accuracies and their difference per task; bars to the right mean that A is better. */
function comparison(a, b) {
  const tasks = state.leaderboard.tasks.map((task, i) => ({ name: task.name, ...paired(a.runs[i], b.runs[i]) }));
  const both = tasks.filter(({ change }) => known(change));
  const widest = Math.max(1, ...both.flatMap(({ change, ends }) => [change, ...(ends ?? [])].map(Math.abs)));
  const lines = tasks.map(({ name, x, y, change, ends }) =>
    h("tr", {}, h("th", { scope: "row", className: "text" }, breakable(name)), td("", fixed(x, 1)), td("", fixed(y, 1)),
      td("", known(change) ? signed(change, 1) : DASH), td("quiet", ends ? ends.map((end) => signed(end, 1)).join(" to ") : DASH),
      td("bar", known(change) ? difference(change, ends, widest) : "")));
  const titles = [["task", "text"], [a.label], [b.label], ["difference"], ["95 % over seeds"], ["", "bar"]];
  return [
    h("p", { className: "verdict" }, `${outcome(a, b, both)} ${overTasks(a, b)}`),
    h("div", { className: "scroll fit" }, table(titles, lines)),
    h("p", { className: "note" }, "Over the common seeds. Intervals are Student's, for at least three seeds: they cover the variation over seeds, " +
      "not over test images."),
  ];
}

/** Return the test of the pair over tasks: p and corrected p, or the reason for having none. */
function overTasks(a, b) {
  const { rows, over_tasks: { reason, pairs, alpha } } = state.leaderboard;
  if (reason) return `Over tasks: no conclusion: ${reason}.`;
  const found = pairs[[rows.indexOf(a), rows.indexOf(b)].sort((x, y) => x - y).join("-")];
  if (!found) return "Over tasks: no conclusion: one of the methods lacks a task of the leaderboard.";
  const [p, corrected] = found;
  const tested = Object.keys(pairs).length;
  const print = (value) => (value < 0.001 ? "below 0.001" : value.toPrecision(2));
  return `Over tasks (Wilcoxon's signed-rank test) p is ${print(p)}, and ${print(corrected)} after Holm's correction over ` +
    `${tested > 1 ? `all ${tested} pairs` : "the one pair"} of the leaderboard: ${corrected < alpha ? "they differ" : "no difference is shown"} at ${alpha}.`;
}

/** Compare one task over the common seeds: accuracies, their difference, and the ends of its 95 % interval. */
function paired(runsA, runsB) {
  const average = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const of = (runs, seed) => average(runs.filter((run) => run[0] === seed).map((run) => run[1]));
  const seeds = [...new Set(runsA.map((run) => run[0]))].filter((seed) => runsB.some((run) => run[0] === seed));
  if (!seeds.length) return { x: null, y: null, change: null, ends: null };
  const [x, y] = [runsA, runsB].map((runs) => average(seeds.map((seed) => of(runs, seed))));
  const changes = seeds.map((seed) => of(runsA, seed) - of(runsB, seed));
  const factor = DATA.student[seeds.length];
  if (!factor) return { x, y, change: x - y, ends: null };
  const variance = changes.reduce((sum, change) => sum + (change - (x - y)) ** 2, 0) / (changes.length - 1);
  const half = factor * Math.sqrt(variance / changes.length);
  return { x, y, change: x - y, ends: [x - y - half, x - y + half] };
}

function outcome(a, b, both) {
  if (!both.length) return `${a.label} and ${b.label} have no common seed on any task.`;
  const wins = both.filter(({ change }) => change > TIE).length;
  const losses = both.filter(({ change }) => change < -TIE).length;
  const mean = both.reduce((sum, { change }) => sum + change, 0) / both.length;
  const place = mean > 0 ? "above" : mean < 0 ? "below" : "from";
  return `${a.label} is ${Math.abs(mean).toFixed(2)} points ${place} ${b.label} on average over ${pluralize(both.length, "task")}: ` +
    `better on ${wins}, worse on ${losses}, equal on ${both.length - wins - losses}.`;
}

/** Draw a difference as a bar from the middle, with its interval as a line. */
function difference(value, ends, widest) {
  const place = (change) => 50 + 50 * change / widest;
  const bar = setPosition(h("i"), Math.min(50, place(value)), Math.abs(place(value) - 50));
  bar.style.setProperty("--tone", value < 0 ? "var(--against)" : "var(--accent)");
  const line = ends ? setPosition(h("i", { className: "line" }), place(ends[0]), place(ends[1]) - place(ends[0])) : null;
  return h("div", { "aria-hidden": "true" }, h("i", { className: "zero" }), bar, line);
}

/** Set the position and size of a mark in percent of the bar's width. */
function setPosition(mark, from, size) {
  mark.style.setProperty("--from", `${from.toFixed(2)}%`);
  mark.style.setProperty("--size", `${size.toFixed(2)}%`);
  return mark;
}

// ------------------------------------------------------------------------------------- disagreement, figures, published numbers

/** Show the matrix of disagreements; darker cells agree more. */
function showDisagreement() {
  const { labels = [], percent = [] } = state.leaderboard.disagreement;
  at("disagreement-section").hidden = !labels.length;
  const highest = Math.max(1, ...percent.flat().filter(known));
  const rows = labels.map((label, i) => h("tr", {}, h("th", { scope: "row", className: "text" }, label), labels.map((_, j) => {
    const value = percent[Math.max(i, j)][Math.min(i, j)];
    const cell = td("heat", h("span", { className: i === j && known(value) ? "best" : "" }, fixed(value, 0)));
    if (known(value)) cell.style.setProperty("--near", (NEAREST * (1 - value / highest)).toFixed(3));
    return cell;
  })));
  at("disagreement").replaceChildren(table([["method", "text"], ...labels.map((label) => [label])], rows));
}

let addresses = [];

function showFigures() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  const figures = Object.entries(state.leaderboard.figures);
  addresses = figures.map(([, svg]) => URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })));
  at("figures").replaceChildren(...figures.map(([name], i) => {
    const caption = CAPTIONS[name] ?? name.replaceAll("_", " ");
    const image = h("img", { src: addresses[i], alt: `${caption}; the table above holds the numbers` });
    return h("figure", {}, image, h("figcaption", {}, caption));
  }));
}

/** Columns of the published numbers: title, class, value that sorts, and text. */
const PUBLISHED = [
  { title: "method", look: "text", value: ({ label }) => label.toLowerCase(), text: ({ label }) => label },
  { title: "measured", value: ({ measured }) => measured, text: ({ measured }) => fixed(measured, 1) },
  { title: "published", value: ({ low }) => low, text: ({ low, high }) => [...new Set([low, high].map((end) => fixed(end, 1)))].join(" to ") },
  { title: "rows", value: ({ rows }) => rows, text: ({ rows }) => String(rows ?? 0) },
  { title: "spread", value: spread, text: (line) => fixed(spread(line), 1) },
  { title: "selected on test", look: "text", value: ({ onTest }) => onTest, text: selection },
];

/** Return the published highest minus lowest accuracy in points, or null. */
function spread({ low, high }) {
  return known(low) ? high - low : null;
}

/** Say how many rows report the best epoch on the test images. */
function selection({ rows, onTest, notOnTest }) {
  return known(rows) ? `${onTest} yes, ${notOnTest} no, ${rows - onTest - notOnTest} unknown` : DASH;
}

function publishedLines(column) {
  return state.leaderboard.published.lines.map(({ label, columns }) => {
    const [measured, low, high, rows, onTest, notOnTest] = columns[column];
    return { label, measured, low, high, rows, onTest, notOnTest };
  });
}

function showPublished() {
  const { reason, sources } = state.leaderboard.published;
  at("published-column").parentElement.hidden = Boolean(reason);
  at("published-spread").replaceChildren(...(reason ? [] : spreads()));
  if (reason) return at("published").replaceChildren(h("p", { className: "note" }, `Nothing to show: ${reason}.`));
  const found = publishedLines(at("published-column").value).filter(({ measured, low }) => known(measured) || known(low));
  const numbers = found.flatMap(({ measured, low, high }) => [measured, low, high]).filter(known);
  const [low, high] = [Math.floor(Math.min(...numbers)), Math.ceil(Math.max(...numbers))];
  const { by, descending } = state.published;
  const heads = PUBLISHED.map(({ title, look }) => {
    const sort = () => {
      state.published = { by: title, descending: by === title ? !descending : title !== "method" };
      showPublished();
      at("published").querySelector("th[aria-sort] button").focus();
    };
    const direction = by === title ? (descending ? "descending" : "ascending") : undefined;
    return h("th", { scope: "col", className: look, "aria-sort": direction }, h("button", { type: "button", onclick: sort }, title));
  });
  const rows = ordered(found, PUBLISHED.find(({ title }) => title === by), descending).map((line) => h("tr", {},
    PUBLISHED.map(({ look, text }, i) => (i ? td(look, text(line)) : h("th", { scope: "row", className: look }, text(line)))),
    td("bar", range(line, low, high))));
  const head = h("thead", {}, h("tr", {}, heads, h("th", { scope: "col", className: "bar text" }, `${low} to ${high} %`)));
  return at("published").replaceChildren(
    h("p", { className: "note" }, `${DATA.caution} Bar: published; dot: measured.`),
    h("div", { className: "scroll fit" }, h("table", {}, head, h("tbody", {}, rows))),
    h("ul", { className: "sources" }, sources.map(sourceLine)));
}

/** Return a table of the spread of published accuracies per method and task, sorted by method. */
function spreads() {
  const { means, tasks, published } = state.leaderboard;
  const names = [...means.map(([name]) => name), ...tasks.map(({ name }) => name)].filter((name) => name in (published.lines[0]?.columns ?? {}));
  const lines = [...published.lines].sort((a, b) => (a.label.toLowerCase() < b.label.toLowerCase() ? -1 : 1));
  const rows = lines.map(({ label, columns }) => h("tr", {}, h("th", { scope: "row", className: "text" }, label),
    names.map((name) => {
      const [, low, high, count] = columns[name];
      const title = known(low) ? `${fixed(low, 1)} to ${fixed(high, 1)} in ${pluralize(count, "row")}` : undefined;
      return h("td", { title }, fixed(spread({ low, high }), 1));
    })));
  return [
    h("h3", {}, "Spread of published accuracies"),
    h("p", { className: "note" }, "Highest minus lowest published accuracy in points, per method and task; — if nobody publishes it."),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "spread of published accuracies" },
      table([["method", "text"], ...names.map((name) => [breakable(name)])], rows)),
  ];
}

const sourceLine = (s) =>
  h("li", {}, `${s.title}, ${s.place}: ${s.reference}. ${s.pretrained}; reported: ${s.selection}; selected on test: ${s.test_selected}; ` +
    `seeds: ${s.seeds}; head: ${s.head}.`);

/** Draw the published range as a bar and the measured accuracy as a dot, on a scale from start to end. */
function range({ measured, low, high }, start, end) {
  const place = (value) => 100 * (value - start) / (end - start);
  return h("div", { "aria-hidden": "true" },
    known(low) ? setPosition(h("i", { className: "published" }), place(low), place(high) - place(low)) : null,
    known(measured) ? setPosition(h("i", { className: "dot" }), place(measured), 0) : null);
}

// ----------------------------------------------------------------------------------------------------------- controls

function showLeaderboard(leaderboard) {
  Object.assign(state, { leaderboard, mean: leaderboard.means[0][0], group: "", family: "", text: "", limit: Infinity });
  Object.assign(state, { sort: { key: "mean", descending: true }, open: new Set(), pair: [], published: { by: "method", descending: false } });
  at("missing").hidden = true;
  const near = DATA.leaderboards.filter(({ backbone }) => ["", backbone].includes(at("backbone").value));
  const option = ({ slug, title, rows }) =>
    h("option", { value: slug, selected: slug === leaderboard.slug }, `${title} (${pluralize(rows.length, "method")})`);
  const procedural = near.filter((other) => other.procedural).map(option);
  at("leaderboard-name").replaceChildren(...near.filter((other) => !other.procedural).map(option),
    ...(procedural.length ? [h("optgroup", { label: "Procedural images" }, procedural)] : []));
  at("banner").textContent = DATA.procedural;
  at("banner").hidden = !leaderboard.procedural;
  at("facts").replaceChildren(...leaderboard.facts.map(fact));
  at("means").replaceChildren(at("means").firstElementChild, ...leaderboard.means.map(meanChoice));
  fill(at("published-column"), [...leaderboard.means, ...leaderboard.tasks.map((task) => [task.name, task.name])], state.mean);
  fill(at("group"), [["", "all tasks"], ...leaderboard.groups.map((name) => [name, name]), ["means", "means only"]], "");
  const families = DATA.families.filter((name) => leaderboard.rows.some((row) => row.family === name));
  fill(at("family"), [["", "all"], ...families.map((name) => [name, name])], "");
  at("search").value = "";
  const sizes = [...new Set(leaderboard.rows.map((row) => row.params))].sort((a, b) => a - b);
  at("limit").max = sizes.length - 1;
  at("limit").oninput = () => showLimit(sizes[at("limit").value]);
  at("limit").value = sizes.length - 1;
  const files = [["leaderboard.csv", "CSV"], ["table.md", "Markdown"], ["table.tex", "LaTeX"]];
  at("links").replaceChildren(...files.map(([file, name]) => h("a", { href: `boards/${encodeURIComponent(leaderboard.slug)}/${file}` }, name)));
  showLimit(sizes.at(-1)); // also shows the table
  showComparison();
  showDisagreement();
  showFigures();
  showPublished();
}

function meanChoice([name, title]) {
  const choose = () => {
    state.mean = name;
    showTable();
    at("published-column").value = name;
    showPublished();
  };
  return h("label", {}, h("input", { type: "radio", name: "mean", checked: name === state.mean, onchange: choose }), h("span", {}, title));
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
  const follow = () => showTheme(system.matches ? "dark" : "light");
  follow();
  system.addEventListener("change", follow);
  at("theme").onclick = () => {
    system.removeEventListener("change", follow); // keep the choice
    showTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  };
  fill(at("backbone"), [["", "all"], ...[...new Set(DATA.leaderboards.map((leaderboard) => leaderboard.backbone))].map((name) => [name, name])], "");
  at("backbone").onchange = () => showLeaderboard(fullest(DATA.leaderboards.filter((leaderboard) => ["", leaderboard.backbone].includes(at("backbone").value))));
  at("leaderboard-name").onchange = () => { location.hash = at("leaderboard-name").value; };
  at("controls").onsubmit = (event) => event.preventDefault();
  at("group").onchange = () => { state.group = at("group").value; state.sort = { key: "mean", descending: true }; showTable(); };
  at("family").onchange = () => { state.family = at("family").value; showTable(); };
  at("published-column").onchange = showPublished;
  at("search").oninput = () => { state.text = at("search").value; showTable(); };
  for (const [place, id] of ["first", "second"].entries()) {
    at(id).onchange = () => { state.pair[place] = at(id).value; showComparison(); showTable(); };
  }
  addEventListener("hashchange", followAddress);
  followAddress();
}

/** Show the leaderboard in the address; if it does not exist, keep the current one and say so. */
function followAddress() {
  const name = location.hash.slice(1);
  const leaderboard = DATA.leaderboards.find(({ slug }) => [slug, encodeURIComponent(slug)].includes(name));
  if (leaderboard || !state.leaderboard) showLeaderboard(leaderboard ?? fullest(DATA.leaderboards));
  if (leaderboard || !name || at(name)) return; // a section of the page, not a leaderboard
  at("missing").textContent = `The leaderboard ${name} of this link is not among these results. Another one is shown.`;
  at("missing").hidden = false;
}

/** Return the leaderboard of real images with most accuracies in ranked rows; ties are resolved by all accuracies. */
function fullest(leaderboards) {
  const ranked = ({ rows, means: [[mean]] }) => rows.filter((row) => known(row.means[mean])).length;
  const weight = (leaderboard) => [ranked(leaderboard) * leaderboard.tasks.length, leaderboard.rows.length * leaderboard.tasks.length];
  return [...leaderboards].sort((a, b) => a.procedural - b.procedural || weight(b)[0] - weight(a)[0] || weight(b)[1] - weight(a)[1])[0];
}

start();
