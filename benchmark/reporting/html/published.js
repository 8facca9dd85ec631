// Disagreement of rows, figures, and published beside measured numbers.

/** Show the matrix of disagreements; darker cells agree more, grey numbers are of two rows with one and the same seed. */
function showDisagreement() {
  const { labels = [], percent = [], seeds = [] } = state.leaderboard.disagreement;
  at("disagreement-section").hidden = !labels.length;
  const highest = Math.max(1, ...percent.flat().filter(known));
  const rows = labels.map((label, i) => h("tr", {}, h("th", { scope: "row", className: "text" }, label), labels.map((_, j) => {
    const value = percent[Math.max(i, j)][Math.min(i, j)];
    const look = i === j ? (known(value) ? "best" : "") : known(seeds[i]) && seeds[i] === seeds[j] ? "quiet" : "";
    const cell = td("heat", h("span", { className: look }, fixed(value, 0)));
    if (known(value)) cell.style.setProperty("--near", (NEAREST * (1 - value / highest)).toFixed(3));
    return cell;
  })));
  at("disagreement").replaceChildren(table([["method", "text"], ...labels.map((label) => [label])], rows));
}

/** Return an SVG that was compressed with zlib and written in base64. */
function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).blob();
}

let addresses = [];

async function showFigures() {
  const { leaderboard } = state;
  const figures = Object.entries(leaderboard.figures);
  const images = await Promise.all(figures.map(([, packed]) => unpacked(packed)));
  if (leaderboard !== state.leaderboard) return; // another one was chosen meanwhile
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = images.map((image) => URL.createObjectURL(new Blob([image], { type: "image/svg+xml" })));
  at("figures").replaceChildren(...figures.map(([name], i) => {
    const [base, part] = name.split("-");
    const caption = CAPTIONS[base] + (part ? `, part ${part}` : "");
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
