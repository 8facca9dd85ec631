// The comparison of chosen rows.

function toggleChosen(label) {
  state.chosen = state.chosen.includes(label) ? state.chosen.filter((name) => name !== label) : [...state.chosen, label];
  showChosen();
}

/** Show which rows are chosen: in the table, in the scatter and in the comparison. */
function showChosen() {
  for (const tick of document.querySelectorAll(".row input")) tick.checked = state.chosen.includes(tick.dataset.label);
  showScatter();
  const { leaderboard, chosen } = state;
  const left = leaderboard.rows.filter((row) => !chosen.includes(row.label)).map((row) => [row.label, row.label]);
  fill(at("add"), [["", "choose a method"], ...left], "");
  at("chosen").replaceChildren(...chosen.map((label, i) => h("li", {},
    h("button", { type: "button", onclick: () => makeFirst(label), disabled: i === 0, "aria-label": `measure differences from ${label}` }, label),
    h("button", { type: "button", onclick: () => toggleChosen(label), "aria-label": `remove ${label}` }, "×"))));
  const [a, ...others] = chosen.map((label) => leaderboard.rows.find((row) => row.label === label));
  const hint = h("p", { className: "note" }, "Choose methods here, in the table or in the scatter; differences are measured from the first.");
  at("comparison").replaceChildren(...(!others.length ? [hint] : others.length === 1 ? comparison(a, others[0]) : comparisons(a, others)));
}

function makeFirst(label) {
  state.chosen = [label, ...state.chosen.filter((name) => name !== label)];
  showChosen();
  at("chosen").querySelector("button:not(:disabled)")?.focus();
}

/** Return a table of the accuracies of several methods, with their differences to the first. */
function comparisons(a, others) {
  const found = others.map((b) => state.leaderboard.tasks.map((_, i) => paired(b.runs[i], a.runs[i])));
  const lines = state.leaderboard.tasks.map(({ name }, i) => h("tr", {}, h("th", { scope: "row", className: "text" }, breakable(name)),
    td("", fixed(a.accuracy[i], 1)),
    found.flatMap((tasks) => {
      const { x, change, ends } = tasks[i];
      const over = ends && h("span", { className: "std" }, ` (${ends.map((end) => signed(end, 1)).join(" to ")})`);
      return [td("from", fixed(x, 1)), td("", known(change) ? signed(change, 1) : DASH, over)];
    })));
  const titles = [["task", "text"], [a.label], ...others.flatMap((b) => [[b.label, "from"], ["difference"]])];
  const verdicts = others.map((b, i) => h("li", {}, `${outcome(b, a, found[i].filter(({ change }) => known(change)))} ${overTasks(b, a)}`));
  return [
    h("ul", { className: "verdict" }, verdicts),
    h("div", { className: "scroll fit", tabIndex: 0, role: "region", "aria-label": "comparison of the chosen methods" }, table(titles, lines)),
    h("p", { className: "note" }, `Differences from ${a.label} over the common seeds; in parentheses Student's 95 % interval over at least three seeds.`),
  ];
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
  const wins = both.filter(({ change }) => above(change, 0)).length;
  const losses = both.filter(({ change }) => above(0, change)).length;
  const mean = both.reduce((sum, { change }) => sum + change, 0) / both.length;
  const place = above(mean, 0) ? "above" : above(0, mean) ? "below" : "from";
  return `${a.label} is ${fixed(Math.abs(mean), 2)} points ${place} ${b.label} on average over ${pluralize(both.length, "task")}: ` +
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
