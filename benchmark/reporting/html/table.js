// The table of a leaderboard: columns, rows, and the runs of a row.

/** Return the column that ranks rows: the selected mean, or the mean of the selected group. */
const meanColumn = () => columns().find((column) => column.mean);

/** Return the columns of the table: key, title, value of a row, and its format. */
function columns() {
  const { leaderboard, group } = state;
  const tasks = leaderboard.tasks.length > 1 ? leaderboard.tasks : []; // the mean of one task is its accuracy
  const shown = tasks.map((task, place) => ({ task, place })).filter(({ task }) => ["", task.group].includes(group));
  const ofGroup = leaderboard.groups.indexOf(group);
  const groups = ofGroup < 0 && group !== "costs" ? leaderboard.groups : [];
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
    { key: "head", title: "+\u00a0head", csv: "params with head", low: true, value: (row) => row.params_with_head, show: count },
    { key: "lr", title: "lr", low: true, value: (row) => row.lr, show: rate },
    { key: "seeds", title: "seeds", value: (row) => row.seeds, show: String },
    ...groups.map((name, i) => ({
      key: `group ${name}`, title: name, decimals: 2, first: i === 0, value: (row) => row.groups[i],
    })),
    ...shown.map(({ task, place }, i) => ({
      key: `task ${place}`, title: task.name, decimals: 1, first: i === 0 || shown[i - 1].task.group !== task.group,
      value: (row) => row.accuracy[place],
    })),
    ...(ofGroup < 0 ? measureColumns(leaderboard) : []),
  ];
}

/** Return the columns of what a method costs. */
function measureColumns(leaderboard) {
  const number = (v) => (known(v) ? Number(v.toPrecision(3)).toLocaleString("en") : DASH);
  return leaderboard.measures.map(([title, low], i) => ({
    key: `measure ${i}`, title, low, first: i === 0, value: (row) => row.measures[i], show: number,
  })).filter(({ value }) => leaderboard.rows.some((row) => known(value(row))));
}

/** Return the rows that the filters leave. */
function filtered() {
  const needle = state.text.trim().toLowerCase();
  return state.leaderboard.rows.filter((row) =>
    (state.family === "" || row.family === state.family) && row.params <= state.limit &&
    `${row.label} ${row.spec}`.toLowerCase().includes(needle));
}

/** Return the rows in the order of the table. */
const visible = (shown) => ordered(filtered(), sortColumn(shown), state.sort.descending);
const sortColumn = (shown) => shown.find((column) => column.key === state.sort.key) ?? meanColumn();

/** Set the rank of all rows by the selected mean, ignoring filters; ties share the better rank. */
function rank(rows, value) {
  const means = rows.map(value).filter(known);
  for (const row of rows) {
    row.rank = known(value(row)) ? 1 + means.filter((mean) => above(mean, value(row))).length : null;
  }
}

function ordered(rows, column, descending) {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    const gaps = Number(!known(x)) - Number(!known(y));
    if (gaps || (column.decimals && Math.abs(x - y) < ROUNDING)) return gaps;
    return x < y ? -direction : x > y ? direction : 0; // gaps are last in both directions; ties keep the report's order
  });
}

/** Return the best and second best printed value of a column over all rows of the leaderboard. */
function best(column) {
  const printed = state.leaderboard.rows.map(column.value).filter(known).map((value) => Number(fixed(value, column.decimals)));
  return [...new Set(printed)].sort((a, b) => b - a).slice(0, 2);
}

function showTable() {
  const shown = columns();
  const { leaderboard } = state;
  rank(leaderboard.rows, meanColumn().value);
  const by = sortColumn(shown), rows = visible(shown);
  at("table").tHead.replaceChildren(h("tr", {},
    h("th", { scope: "col" }, h("span", { className: "quiet", title: "Select rows to compare them" }, "+")),
    ...shown.map((column) => headCell(column, by))));
  const bestValues = new Map(shown.filter((column) => column.decimals).map((column) => [column.key, best(column)]));
  at("table").tBodies[0].replaceChildren(...rows.flatMap((row, i) => bodyRows(row, i, shown, bestValues)));
  at("count").textContent = `${rows.length} of ${pluralize(leaderboard.rows.length, "method")}, sorted by ${by.title}`;
  showScatter();
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
    type: "checkbox", checked: state.chosen.includes(row.label), onchange: () => toggleChosen(row.label),
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
    ["paper", row.paper ? paperLinks(row) : DASH], ["device", row.device || DASH], ...(row.plugin ? [["plug-in file", row.plugin.slice(0, 12)]] : []),
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

/** Return links to the paper, the authors' code and this project's page of the method. */
function paperLinks({ name, paper: [year, arxiv, code] }) {
  const links = [
    ...(arxiv ? [[`https://arxiv.org/abs/${arxiv}`, `arXiv:${arxiv} (${year})`]] : []),
    ...(code ? [[`https://github.com/${code}`, code]] : []),
    [`../docs/methods.md#${name}`, "how it is implemented"],
  ];
  return links.flatMap(([href, text], i) => [i ? ", " : "", h("a", { href }, text)]);
}

/** Return what the table shows as CSV; cells that a spreadsheet would execute get an apostrophe, as in leaderboard.csv. */
function shownAsCsv() {
  const shown = columns();
  const quoted = (value) => {
    const text = typeof value === "string" && /^[=+\-@＝＋－＠]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const cells = visible(shown).map((row) => shown.map((column) => (column.kind === "method" ? row.label : column.value(row))));
  return [shown.map((column) => column.csv ?? column.title), ...cells].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function saveCsv() {
  const href = URL.createObjectURL(new Blob([shownAsCsv()], { type: "text/csv" }));
  h("a", { href, download: `${state.leaderboard.slug}.csv` }).click();
  URL.revokeObjectURL(href);
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
  return [middle - half, middle + half].map((end) => fixed(100 * end / (1 + square / images), 1)).join(" to ");
}

const gapLine = (place) =>
  h("tr", {}, td("text", state.leaderboard.tasks[place].name), h("td", { className: "text quiet", colSpan: 8 }, "not run, or failed"));

function environmentText(place) {
  const { device, versions, numerics } = DATA.environments[place];
  const list = (facts) => Object.entries(facts ?? {}).map(([name, value]) => `${name} ${value}`);
  return [device, ...list(numerics), ...list(versions)].filter(Boolean).join(", ");
}
