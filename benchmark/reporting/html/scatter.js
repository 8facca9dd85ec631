// The scatter of rows that the filters leave, against any two axes, with its Pareto front.

const HEIGHT = 420;
const EDGE = { left: 56, right: 16, top: 14, bottom: 44 };
const WIDE = 30; // ratio of the largest to the smallest value from which an axis is logarithmic
const LETTER = 6.4; // width of a letter in pixels at 12 px, for labels that must not overlap

/** Create an SVG element with attributes. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (known(value)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Return what an axis can show: key, title, value of a row, format, and whether low values are better. */
function axes() {
  const { leaderboard } = state;
  const percent = (v) => fixed(v, 1);
  return [
    { key: "params", title: "trainable parameters without the head", low: true, value: (row) => row.params, show: count },
    { key: "head", title: "trainable parameters with the head", low: true, value: (row) => row.params_with_head, show: count },
    ...measureColumns(leaderboard),
    ...leaderboard.means.map(([name, title]) => ({ key: name, title: `${title} (%)`, value: (row) => row.means[name], show: percent })),
    ...leaderboard.groups.map((name, i) => ({ key: `group ${name}`, title: `${name} (%)`, value: (row) => row.groups[i], show: percent })),
    ...(leaderboard.tasks.length > 1 ? leaderboard.tasks : []).map(({ name }, i) => ({ key: `task ${i}`, title: `${name} (%)`, value: (row) => row.accuracy[i], show: percent })),
  ].filter(({ value }) => leaderboard.rows.some((row) => known(value(row))));
}

/** Return the rows that no other row beats on both axes, by increasing x. */
function paretoFront(points) {
  return points.filter((a) => !points.some((b) =>
    ![0, 1].some((i) => above(a.better[i], b.better[i])) && [0, 1].some((i) => above(b.better[i], a.better[i]))))
    .sort((a, b) => a.x - b.x || a.y - b.y);
}

/** Return the map from values to pixels and its ticks; a logarithmic axis has 0 left of its smallest value. */
function scale(values, from, to, show) {
  const positive = values.filter((v) => v > 0);
  const log = positive.length > 1 && Math.max(...positive) / Math.min(...positive) > WIDE && Math.min(...values) >= 0;
  const zero = log ? Math.log10(Math.min(...positive)) - 0.7 : 0;
  const map = (v) => (!log ? v : v > 0 ? Math.log10(v) : zero);
  let [low, high] = [Math.min(...values.map(map)), Math.max(...values.map(map))];
  const margin = 0.05 * (high - low) || 1;
  [low, high] = [low - margin, high + margin];
  const place = (v) => from + ((map(v) - low) / (high - low)) * (to - from);
  const step = 10 ** Math.floor(Math.log10((high - low) / 4));
  const nice = step * [1, 2, 5, 10].find((factor) => (high - low) / (factor * step) <= 7);
  const decades = (high - low) / 7 > 1 ? Math.ceil((high - low) / 7) : 1;
  const ticks = log
    ? [...(values.includes(0) ? [0] : []), ...range10(Math.ceil(Math.max(low, zero + 0.5)), Math.floor(high), decades)]
    : Array.from({ length: Math.floor(high / nice) - Math.ceil(low / nice) + 1 }, (_, i) => (Math.ceil(low / nice) + i) * nice);
  const short = (v) => show(Number(v.toPrecision(6))).replace(/\.0+(?=\D|$)/, "");
  return { place, ticks: ticks.map((v) => [place(v), short(v)]) };
}

const range10 = (first, last, step) =>
  Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, i) => 10 ** (first + i * step));

function showScatter() {
  const choices = axes();
  const axis = (key, other) => choices.find((one) => one.key === key) ?? choices.find((one) => one.key === other);
  const [x, y] = [axis(state.x, "params"), axis(state.y, state.leaderboard.means[0][0])];
  [["x", x], ["y", y]].forEach(([id, chosen]) => fill(at(id), choices.map(({ key, title }) => [key, title]), chosen.key));
  const points = filtered().filter((row) => known(x.value(row)) && known(y.value(row))).map((row) => ({
    row, x: x.value(row), y: y.value(row), better: [x, y].map(({ low, value }) => (low ? -1 : 1) * value(row)),
  })).sort((a, b) => a.x - b.x || a.y - b.y);
  at("point").textContent = points.length ? "Point at a dot, or use the arrow keys; a click chooses it for the comparison." : "Nothing to show.";
  at("scatter").replaceChildren(...(points.length ? [drawScatter(points, x, y)] : []));
}

function drawScatter(points, x, y) {
  const width = Math.max(300, at("scatter").clientWidth);
  const across = scale(points.map((p) => p.x), EDGE.left, width - EDGE.right, x.show);
  const up = scale(points.map((p) => p.y), HEIGHT - EDGE.bottom, EDGE.top, y.show);
  const front = paretoFront(points);
  const places = new Map(points.map((p) => [p, [across.place(p.x), up.place(p.y)]]));
  const circles = points.map((p, i) => dot(p, i, places.get(p), front.includes(p), x, y));
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "group", "aria-labelledby": "scatter-title" },
    ...across.ticks.flatMap(([place, text]) => [
      svg("line", { class: "grid", x1: place, x2: place, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
      svg("text", { class: "tick", x: place, y: HEIGHT - EDGE.bottom + 16, "text-anchor": "middle" }, text)]),
    ...up.ticks.flatMap(([place, text]) => [
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: place, y2: place }),
      svg("text", { class: "tick", x: EDGE.left - 6, y: place + 4, "text-anchor": "end" }, text)]),
    svg("text", { class: "axis", x: (EDGE.left + width) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.title),
    svg("text", { class: "axis", x: 12, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${HEIGHT / 2})` }, y.title),
    svg("path", { class: "front", d: steps(front, places) }),
    ...labels(points, front, places, width), ...circles);
}

/** Return the path of the front; its corners are as bad as both neighbours, which nothing on it is. */
function steps(front, places) {
  const [first, ...rest] = front;
  let before = first, path = `M${places.get(first).join(" ")}`;
  for (const p of rest) {
    const [px, py] = places.get(p), [qx, qy] = places.get(before);
    path += ` L${p.better[0] < before.better[0] ? px : qx} ${p.better[1] < before.better[1] ? py : qy} L${px} ${py}`;
    before = p;
  }
  return path;
}

function dot({ row, x: xValue, y: yValue }, i, [cx, cy], onFront, x, y) {
  const text = `${row.label} · ${x.title}: ${x.show(xValue)} · ${y.title}: ${y.show(yValue)}${onFront ? " · on the Pareto front" : ""}`;
  const chosen = state.chosen.includes(row.label);
  const circle = svg("circle", {
    id: `point-${i}`, class: `point${onFront ? " best" : ""}${chosen ? " chosen" : ""}`, cx, cy, r: 5, tabindex: i ? -1 : 0,
    role: "button", "aria-pressed": chosen, "aria-label": text,
  }, svg("title", {}, text));
  const tell = () => { at("point").textContent = text; };
  const toggle = () => { toggleChosen(row.label); at(`point-${i}`).focus(); };
  circle.onpointerenter = circle.onfocus = tell;
  circle.onclick = toggle;
  circle.onkeydown = (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (move || event.key === "Enter" || event.key === " ") event.preventDefault();
    if (move) at(`point-${i + move}`)?.focus();
    if (event.key === "Enter" || event.key === " ") toggle();
  };
  return circle;
}

/** Return the names of the front, of chosen rows, and of LoRA and AOFT, where there is room. */
function labels(points, front, places, width) {
  const boxes = points.map((p) => { const [px, py] = places.get(p); return [px - 5, py - 5, px + 5, py + 5]; });
  const urgency = (p) => (state.chosen.includes(p.row.label) ? 3 : /^(lora$|aoft_)/.test(p.row.name) ? 2 : front.includes(p) ? 1 : 0);
  return points.filter(urgency).sort((a, b) => urgency(b) - urgency(a)).flatMap((p) => {
    const [px, py] = places.get(p), size = LETTER * p.row.label.length;
    const found = [["start", px + 8, 0, -7], ["end", px - 8, -1, -7], ["middle", px, -0.5, -21], ["middle", px, -0.5, 7]]
      .map(([anchor, x, shift, above]) => ({ anchor, x, box: [x + shift * size, py + above, x + (1 + shift) * size, py + above + 14] }))
      .find(({ box: [left, top, right, bottom] }) => left > EDGE.left && right < width && top > 0 && bottom < HEIGHT - EDGE.bottom &&
        !boxes.some((b) => left < b[2] && b[0] < right && top < b[3] && b[1] < bottom));
    if (!found) return [];
    boxes.push(found.box);
    const place = { class: "name-of", x: found.x, y: found.box[1] + 11, "text-anchor": found.anchor, "aria-hidden": true };
    return [svg("text", place, p.row.label)];
  });
}
