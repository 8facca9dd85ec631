// Controls, the address, and the start of the page.

/** Show a leaderboard; `view` has what the address says about filters, order, columns, axes and comparison. */
function showLeaderboard(leaderboard, view = new URLSearchParams()) {
  const asked = (name, choices, otherwise) => (choices.includes(view.get(name)) ? view.get(name) : otherwise);
  const means = leaderboard.means.map(([name]) => name);
  const families = DATA.families.filter((name) => leaderboard.rows.some((row) => row.family === name));
  const sizes = [...new Set(leaderboard.rows.map((row) => row.params))].sort((a, b) => a - b);
  const limit = view.has("limit") ? sizes.findLastIndex((size) => size <= Number(view.get("limit"))) : -1;
  const [, key, direction] = /^(.*)\.(asc|desc)$/.exec(view.get("sort") ?? "") ?? [];
  const labels = leaderboard.rows.map((row) => row.label);
  Object.assign(state, {
    leaderboard, open: new Set(), published: { by: "method", descending: false },
    mean: asked("mean", means, means[0]),
    group: asked("columns", [...leaderboard.groups, "means", "costs"], ""),
    family: asked("family", families, ""),
    text: view.get("text") ?? "",
    sort: key ? { key, descending: direction === "desc" } : { key: "mean", descending: true },
    chosen: [...new Set(view.getAll("compare"))].filter((label) => labels.includes(label)),
    x: view.get("x") ?? "params", y: view.get("y") ?? means[0],
  });
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
  fill(at("group"), [["", "all"], ...leaderboard.groups.map((name) => [name, name]), ["means", "means and costs"], ["costs", "costs only"]], state.group);
  fill(at("family"), [["", "all"], ...families.map((name) => [name, name])], state.family);
  at("search").value = state.text;
  at("limit").max = sizes.length - 1;
  at("limit").oninput = () => showLimit(sizes, Number(at("limit").value));
  at("limit").value = limit < 0 ? sizes.length - 1 : limit;
  const files = [["leaderboard.csv", "CSV"], ["table.md", "Markdown"], ["table.tex", "LaTeX"], ["significance.md", "tests"]];
  at("links").replaceChildren(...files.map(([file, name]) => h("a", { href: `boards/${encodeURIComponent(leaderboard.slug)}/${file}` }, name)));
  showLimit(sizes, Number(at("limit").value)); // also shows the table and the scatter
  showChosen();
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

/** Show the rows with at most the parameters of a size; the largest is no limit. */
function showLimit(sizes, place) {
  state.limit = place === sizes.length - 1 ? Infinity : sizes[place];
  at("limit-text").textContent = count(sizes[place]);
  at("limit").setAttribute("aria-valuetext", count(sizes[place]));
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
  at("leaderboard-name").onchange = () => showLeaderboard(DATA.leaderboards.find(({ slug }) => slug === at("leaderboard-name").value));
  at("controls").onsubmit = (event) => event.preventDefault();
  at("group").onchange = () => { state.group = at("group").value; state.sort = { key: "mean", descending: true }; showTable(); };
  at("family").onchange = () => { state.family = at("family").value; showTable(); };
  at("published-column").onchange = showPublished;
  at("search").oninput = () => { state.text = at("search").value; showTable(); };
  at("add").onchange = () => { if (at("add").value) toggleChosen(at("add").value); };
  at("clear").onclick = () => { state.chosen = []; showChosen(); };
  at("save").onclick = saveCsv;
  for (const id of ["x", "y"]) at(id).onchange = () => { state[id] = at(id).value; showScatter(); };
  addEventListener("resize", showScatter);
  at("version").textContent = DATA.version;
  for (const kind of ["click", "change", "input", "keydown"]) addEventListener(kind, writeAddress); // after the controls' own
  addEventListener("hashchange", followAddress);
  followAddress();
}

/** Write what is shown into the address; another leaderboard is a new step of the browser's history. */
function writeAddress() {
  const { leaderboard, mean, group, family, text, limit, sort, chosen, x, y } = state;
  const first = leaderboard.means[0][0];
  const entries = [
    ["mean", mean, first], ["columns", group, ""], ["family", family, ""], ["text", text, ""], ["limit", limit, Infinity],
    ["sort", `${sort.key}.${sort.descending ? "desc" : "asc"}`, "mean.desc"], ...chosen.map((label) => ["compare", label, ""]),
    ["x", x, "params"], ["y", y, first],
  ].filter(([, value, usual]) => value !== usual);
  const slug = encodeURIComponent(leaderboard.slug);
  const view = new URLSearchParams(entries.map(([name, value]) => [name, String(value)])).toString();
  const address = `#${slug}${view && `&${view}`}`;
  if (address === location.hash) return;
  history[[slug, ""].includes(location.hash.slice(1).split("&")[0]) ? "replaceState" : "pushState"](null, "", address);
}

/** Show the leaderboard in the address; if it does not exist, keep the current one and say so. */
function followAddress() {
  const [name, ...view] = location.hash.slice(1).split("&");
  const leaderboard = DATA.leaderboards.find(({ slug }) => [slug, encodeURIComponent(slug)].includes(name));
  if (leaderboard) showLeaderboard(leaderboard, new URLSearchParams(view.join("&")));
  else if (!state.leaderboard) showLeaderboard(fullest(DATA.leaderboards));
  if (leaderboard || !name || at(name)) return; // a section of the page, not a leaderboard
  at("missing").textContent = `The leaderboard ${name} of this link is not among these results. Another one is shown.`;
  at("missing").hidden = false;
}

/** Return the most realistic leaderboard: official tasks, then photographs, with ranked rows, long training, many accuracies. */
function fullest(leaderboards) {
  const weight = ({ rows, tasks, means: [[mean]], procedural, official, epochs }) => {
    const ranked = rows.filter((row) => known(row.means[mean])).length;
    return [official, !procedural, ranked > 2, epochs, ranked * tasks.length, rows.length * tasks.length].map(Number);
  };
  return [...leaderboards].sort((a, b) => weight(b).map((value, i) => value - weight(a)[i]).find(Boolean) ?? 0)[0];
}

start();
