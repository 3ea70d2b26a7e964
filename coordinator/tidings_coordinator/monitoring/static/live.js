"use strict";
// The page's whole program: takes the coordinator's events, keeps a copy of the run, draws it.
// Nothing of what comes in is ever made into markup: text goes in as text.

const LEVELS = 6, MAX_POINTS = 4000, MAX_EVENTS = 200, WINDOW_S = 5, SIZE = 1000, MARGIN = 70;
const run = { facts: null, view: null, points: [], events: [], cost: null, result: null, loads: [] };
const history = [];
let drawing = null, due = false;

const $ = id => document.getElementById(id);
const known = value => typeof value === "number" && isFinite(value);

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "rect", "polygon", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// -- words -------------------------------------------------------------------------------------

function scaled(value, units, base = 1000) {
  let step = 0;
  while (value >= base && step < units.length - 1) { value /= base; step++; }
  return `${step ? value.toFixed(value < 100 ? 1 : 0) : Math.round(value)} ${units[step]}`;
}
const size = bytes => scaled(bytes, ["B", "kB", "MB", "GB", "TB"]);
const rate = bits => scaled(bits, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
/** '15.3 of 20.0 Mbit/s'. */
function ofRate(bits, asked) {
  const [limit, unit] = rate(asked).split(" ");
  return `${(bits / asked * limit).toFixed(1)} of ${limit} ${unit}`;
}
const percent = ratio => known(ratio) ? `${(100 * ratio).toFixed(1)} %` : "—";
function number(value) {
  if (!known(value)) return "—";
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  return exponent < -4 || exponent > 5 ? value.toExponential(2) : String(+value.toPrecision(4));
}
const metric = (name, value) => name === "accuracy" ? percent(value) : number(value);
function seconds(span) {
  if (!known(span)) return "—";
  if (span < 120) return `${span.toFixed(1)} s`;
  const whole = Math.round(span), minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// -- what comes in -----------------------------------------------------------------------------

const takes = {
  state(data) {
    Object.assign(run, { facts: data.facts, points: data.points, cost: data.cost,
      events: data.events, result: data.result });
    takes.view(data.view);
    drawing = null;
    if (run.result) source.close();
  },
  view(data) {
    run.view = data;
    if (!data.loads) return;
    run.loads = data.loads;
    const last = history[history.length - 1];
    if (last && data.time_s <= last.time_s) return;
    history.push({ time_s: data.time_s, loads: data.loads });
    while (history.length > 2 && data.time_s - history[0].time_s > WINDOW_S) history.shift();
  },
  point(data) {
    run.points.push(data);
    run.cost = data.cost;
    if (run.points.length > MAX_POINTS) run.points = run.points.filter((_, i) => i % 2 === 0);
  },
  happened(data) {
    run.events.push(data);
    if (run.events.length > MAX_EVENTS) run.events.shift();
  },
  end(data) {
    run.result = data;
    source.close();
  },
};

const source = new EventSource("events");
for (const kind of Object.keys(takes)) {
  source.addEventListener(kind, message => {
    takes[kind](JSON.parse(message.data));
    line("on", "live");
    if (!due) { due = true; requestAnimationFrame(draw); }
  });
}
source.onerror = () => { if (!run.result) line("off", "no connection to the coordinator"); };

function line(state, text) {
  if (run.result) { state = ""; text = "the run is over"; }
  $("line").className = `line ${state}`;
  $("line").textContent = text;
}

// -- drawing -----------------------------------------------------------------------------------

function draw() {
  due = false;
  if (!run.facts || !run.view || !run.view.nodes) return;
  head();
  chart("accuracy");
  chart("loss");
  network();
  links();
  nodes();
  events();
}

function head() {
  const { facts, view, points, result } = run, last = points[points.length - 1];
  $("parts").replaceChildren(...facts.parts.map(part => make("span", {}, part)));
  const round = Math.min(...view.nodes.map(node => node[1]));
  const level = !result ? "" : { completed: "good", aborted: "warn" }[result.run] || "bad";
  const says = result ? result.run : view.phase;
  const items = [make("li", { class: level }, make("span", { class: "about" }, "Run"), make("b", {}, says))];
  if (result && result.reason) items.push(make("li", {}, make("span", { class: "about" }, "because"), result.reason));
  const network = result ? result.fidelity.verdict : "unknown";
  if (network !== "unknown") {
    const fine = network === "pass";
    items.push(make("li", { class: fine ? "good" : "bad" }, make("span", { class: "about" }, "Network"),
      make("b", {}, fine ? "as asked for" : "not as asked for")));
  }
  if (result && result.expect.length) {
    const passed = result.expect.filter(check => check.verdict === "pass").length;
    const level = passed === result.expect.length ? "good" : result.expect.some(check => check.verdict === "fail") ? "bad" : "warn";
    items.push(make("li", { class: level }, make("span", { class: "about" }, "Checks"),
      make("b", {}, `${passed} of ${result.expect.length} pass`)));
  }
  $("verdict").replaceChildren(...items);
  $("progress").hidden = !view.rounds;
  if (view.rounds) $("progress").firstElementChild.style.width = `${Math.min(100, 100 * round / view.rounds)}%`;
  const sent = view.nodes.reduce((sum, node) => sum + node[2], 0);
  const [bits] = throughput();
  const spread = name => {
    const found = last && last.metrics[name];
    return found ? [metric(name, found[0]), `${metric(name, found[1])} to ${metric(name, found[2])} over nodes`] : ["—", ""];
  };
  const goal = facts.goal;
  const figures = [
    ["Accuracy", ...spread("accuracy")],
    ["Loss", ...spread("loss")],
    ["Bytes sent", size(sent), result ? "all nodes, every kind" : `${rate(bits)} now, all nodes`],
    ["Emulated time", seconds(view.time_s), ""],
    ["Rounds", String(round), view.rounds ? `of ${view.rounds}` : ""],
    ["Cost to target", goal ? (run.cost ? size(run.cost.bytes) : "not yet") : "none",
      goal ? `${goal.metric} ${metric(goal.metric, goal.value)}` + (run.cost ? ` after ${number(run.cost.rounds)} rounds` : "") : ""],
    ["Consensus distance", last ? number(last.consensus_distance) : "—", "mean squared"],
    ["Control plane", size(view.control_bytes), "both ways"],
  ];
  $("figures").replaceChildren(...figures.map(([label, value, note]) => make("div", {},
    make("dt", {}, label), make("dd", { class: "value" }, value), make("dd", { class: "of" }, note))));
}

/** Bits per emulated second now, in all and by link. */
function throughput() {
  const first = history[0], last = history[history.length - 1];
  if (!last || first === last || run.result) return [0, run.loads.map(() => 0)];
  const span = last.time_s - first.time_s;
  const by = last.loads.map((load, i) => Math.max(0, 8 * (load - first.loads[i]) / span));
  return [by.reduce((sum, bits) => sum + bits, 0), by];
}

function ticks(low, high, about) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(each => each >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9) + 1e-12; k++) found.push(k * step);
  return found;
}

function chart(name) {
  const svg = $(name), points = run.points.filter(point => point.metrics[name] && known(point.metrics[name][0]));
  const figure = svg.parentElement;
  figure.hidden = run.points.length > 0 && points.length === 0;
  if (!points.length) return;
  $("learning-note").textContent = "Bytes are those that all nodes have sent, of every kind, measured after encoding."
    + (run.facts.goal ? " Dashed: the target." : "");
  const width = svg.clientWidth || 500, height = svg.clientHeight || 270, left = 46, bottom = 40, top = 12, right = 10;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const goal = run.facts.goal && run.facts.goal.metric === name ? run.facts.goal.value : null;
  const most = Math.max(points[points.length - 1].bytes, 1) * 1.03;
  const all = points.flatMap(point => point.metrics[name]).filter(known);
  const log = name !== "accuracy" && Math.min(...all) > 0;
  let low = name === "accuracy" ? 0 : Math.min(...all), high = name === "accuracy" ? 1 : Math.max(...all);
  if (goal !== null && name !== "accuracy" && (!log || goal > 0)) { low = Math.min(low, goal); high = Math.max(high, goal); }
  if (log) { low = low / 1.1; high = high * 1.1; }
  if (high <= low) high = low + 1;
  const along = bytes => left + (width - left - right) * bytes / most;
  const share = value => log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const up = value => height - bottom - (height - bottom - top) * Math.min(1.02, Math.max(-0.02, share(value)));
  const parts = [];
  const marks = name === "accuracy" ? [0, .2, .4, .6, .8, 1] : log ? logTicks(low, high) : ticks(low, high, 4);
  for (const value of marks) {
    const y = up(value);
    parts.push(make("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }));
    parts.push(make("text", { x: left - 8, y: y + 4, "text-anchor": "end" },
      name === "accuracy" ? `${Math.round(100 * value)}%` : number(value)));
  }
  const unit = most >= 1e9 ? [1e9, "GB"] : most >= 1e6 ? [1e6, "MB"] : most >= 1e3 ? [1e3, "kB"] : [1, "B"];
  for (const value of ticks(0, most / unit[0], width < 420 ? 3 : 5)) {
    parts.push(make("text", { x: along(value * unit[0]), y: height - bottom + 16, "text-anchor": "middle" }, number(value)));
  }
  parts.push(make("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, `${unit[1]} sent, all nodes`));
  parts.push(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  const at = (point, which) => `${along(point.bytes).toFixed(1)} ${up(point.metrics[name][which] ?? point.metrics[name][0]).toFixed(1)}`;
  const band = [...points.map(point => at(point, 2)), ...points.slice().reverse().map(point => at(point, 1))];
  parts.push(make("path", { class: "band", d: `M${band.join("L")}Z` }));
  if (goal !== null) parts.push(make("line", { class: "goal", x1: left, x2: width - right, y1: up(goal), y2: up(goal) }));
  parts.push(make("path", { class: "mean", d: `M${points.map(point => at(point, 0)).join("L")}` }));
  const newest = points[points.length - 1];
  const met = goal !== null && run.cost ? points.find(point => point.bytes >= run.cost.bytes) : null;
  if (met) {
    const x = along(met.bytes);
    const before = x > 0.7 * width;
    parts.push(make("line", { class: "met", x1: x, x2: x, y1: up(met.metrics[name][0]), y2: height - bottom }));
    parts.push(make("circle", { cx: x, cy: up(met.metrics[name][0]), r: 4 }));
    parts.push(make("text", { class: "said", x: x + (before ? -6 : 6), y: height - bottom - 8, "text-anchor": before ? "end" : "start" }, size(run.cost.bytes)));
  }
  if (met !== newest) parts.push(make("circle", { cx: along(newest.bytes), cy: up(newest.metrics[name][0]), r: 2.5 }));
  svg.replaceChildren(...parts);
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  const few = found.filter(value => /^1/.test(value.toExponential()));
  return found.length <= 6 || few.length < 2 ? found.slice(0, 8) : few;
}

// -- the network -------------------------------------------------------------------------------

function layOut() {
  const { layout, arcs, roles, byzantine } = run.facts;
  const xs = layout.map(p => p[0]), ys = layout.map(p => p[1]);
  const span = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1e-9);
  const place = layout.map(([x, y]) => [(x - Math.min(...xs)) / span * SIZE, (Math.max(...ys) - y) / span * SIZE]);
  const nearest = place.map(([x, y], i) => Math.min(...place.map(([u, v], j) => i === j ? Infinity : Math.hypot(x - u, y - v))));
  nearest.sort((a, b) => a - b);
  const radius = Math.max(9, Math.min(34, 0.38 * nearest[Math.floor(nearest.length / 10)]));
  const both = new Set(arcs.map(([a, b]) => `${a},${b}`));
  const svg = $("network"), seen = place.slice();
  const blocked = (a, b) => place.length <= 64 && place.some(([x, y], k) => {
    if (k === a || k === b) return false;
    const [sx, sy] = place[a], dx = place[b][0] - sx, dy = place[b][1] - sy;
    const share = Math.max(0, Math.min(1, ((x - sx) * dx + (y - sy) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(x - sx - share * dx, y - sy - share * dy) < 1.3 * radius;
  });
  const paths = arcs.map(([a, b]) => {
    const low = Math.min(a, b), high = Math.max(a, b), [ax, ay] = place[a], [bx, by] = place[b];
    let middle = [(ax + bx) / 2, (ay + by) / 2];
    const bend = arcs.length <= 8 * place.length && blocked(low, high);
    if (bend) {
      const [lx, ly] = place[low], [hx, hy] = place[high];
      middle = [middle[0] + 0.1 * (ly - hy), middle[1] + 0.1 * (hx - lx)];
      seen.push(middle);
    }
    const control = [2 * middle[0] - (ax + bx) / 2, 2 * middle[1] - (ay + by) / 2];
    const mutual = both.has(`${b},${a}`), end = mutual ? middle : [bx, by];
    const turn = mutual ? [(ax + control[0]) / 2, (ay + control[1]) / 2] : control;
    const path = make("path", { d: `M${ax} ${ay}Q${turn[0]} ${turn[1]} ${end[0]} ${end[1]}` }, make("title"));
    return path;
  });
  const groups = place.map(([x, y], i) => {
    const server = roles[i] === "server", attacks = byzantine.includes(i), side = (server ? 1.15 : 1.35) * radius;
    const shape = server ? make("rect", { x: x - side, y: y - side, width: 2 * side, height: 2 * side, rx: 4 })
      : attacks ? make("polygon", { points: `${x},${y - side} ${x + side},${y} ${x},${y + side} ${x - side},${y}` })
        : make("circle", { cx: x, cy: y, r: radius });
    const font = radius * (i < 100 ? 1.05 : 0.85);
    return make("g", {}, make("title"), shape, make("text", { x, y: y + 0.36 * font, "font-size": font }, String(i)));
  });
  const low = [0, 1].map(k => Math.min(...seen.map(p => p[k])) - MARGIN);
  const high = [0, 1].map(k => Math.max(...seen.map(p => p[k])) + MARGIN);
  svg.setAttribute("viewBox", `${low[0]} ${low[1]} ${high[0] - low[0]} ${high[1] - low[1]}`);
  svg.replaceChildren(...paths, ...groups);
  const thick = 0.3 * radius / Math.max(1, arcs.length / 2 / place.length) ** 0.75;
  const rows = [["computing", "computing"], ["waiting", "waiting"], ["finished", "finished"], ["dead", "dead"]];
  if (roles.includes("server")) rows.push(["serves", "server"]);
  if (byzantine.length) rows.push(["attacks", "Byzantine"]);
  $("legend").replaceChildren(...rows.map(([kind, text]) => make("li", {}, make("span", { class: `swatch ${kind}` }), text)));
  return { paths, groups, thick };
}

function network() {
  drawing = drawing || layOut();
  const { arcs, rates, roles, byzantine } = run.facts, most = Math.max(...run.loads, 0), [, bits] = throughput();
  arcs.forEach(([a, b], i) => {
    const load = run.loads[i] || 0, level = most ? Math.ceil(LEVELS * load / most) : 0, path = drawing.paths[i];
    const full = known(rates[i]) && bits[i] >= 0.95 * rates[i];
    path.setAttribute("class", `load${level}${full ? " full" : ""}`);
    path.setAttribute("stroke-width", Math.max(level ? 0.6 : 1.2, drawing.thick * (level || 2) / LEVELS).toFixed(1));
    path.firstChild.textContent = `${a} → ${b}: ${size(load)}, ${rate(bits[i] || 0)} now`
      + (known(rates[i]) ? ` of ${rate(rates[i])}` : "");
  });
  $("most").textContent = most ? `The darkest has carried ${size(most)}.` : "";
  run.view.nodes.forEach((node, i) => {
    const kind = byzantine.includes(i) ? "byzantine" : roles[i] === "server" ? "server" : "honest";
    drawing.groups[i].setAttribute("class", `${kind} ${node[0]}`);
    drawing.groups[i].firstChild.textContent = `node ${i}, ${roles[i]}, ${node[0]}, round ${node[1]}, sent ${size(node[2])}`;
  });
}

function links() {
  const { arcs, rates } = run.facts, [total, bits] = throughput();
  if (!total) {
    $("links").replaceChildren(make("p", { class: "note" }, "Nothing is being sent."));
    return;
  }
  const most = Math.max(...bits), load = i => known(rates[i]) ? bits[i] / rates[i] : bits[i] / most;
  const order = arcs.map((_, i) => i).sort((i, j) => load(j) - load(i)).slice(0, 6);
  $("links").replaceChildren(...order.map(i => {
    const bar = make("b", { class: known(rates[i]) && load(i) >= 0.95 ? "full" : "" });
    bar.style.width = `${Math.min(100, 100 * load(i)).toFixed(0)}%`;
    const text = known(rates[i]) ? ofRate(bits[i], rates[i]) : rate(bits[i]);
    return make("div", {}, make("span", {}, `${arcs[i][0]} → ${arcs[i][1]}`), make("i", {}, bar), make("span", {}, text));
  }));
}

// -- tables ------------------------------------------------------------------------------------

function nodes() {
  const counts = {};
  for (const [state] of run.view.nodes) counts[state] = (counts[state] || 0) + 1;
  $("states").textContent = Object.entries(counts).map(([state, count]) => `${count} ${state}`).join(", ");
  const { byzantine, roles } = run.facts;
  $("nodes").tBodies[0].replaceChildren(...run.view.nodes.map(([state, round, sent, accuracy, loss, waits], i) =>
    make("tr", {},
      make("td", {}, String(i) + (byzantine.includes(i) ? " (Byzantine)" : roles[i] === "server" ? " (server)" : "")),
      make("td", { class: "l" }, make("span", { class: `swatch ${state}` }), state),
      make("td", {}, String(round)),
      make("td", {}, size(sent)),
      make("td", {}, percent(accuracy)),
      make("td", {}, number(loss)),
      make("td", { class: "l waits" }, waits))));
}

function events() {
  const bad = /fail|died|dead|crash|lost|not_/;
  $("events").tBodies[0].replaceChildren(...run.events.slice().reverse().map(event => {
    const { time_s, node, event: name, utc, ...rest } = event;
    return make("tr", bad.test(name) ? { class: "bad" } : {},
      make("td", {}, known(time_s) ? time_s.toFixed(2) : ""),
      make("td", {}, known(node) ? String(node) : ""),
      make("td", {}, name.replace(/_/g, " ")),
      make("td", {}, details(rest)));
  }));
}

function details(fields) {
  if (typeof fields.fields === "string") {
    try { fields = JSON.parse(fields.fields); } catch { /* shown as it came */ }
  }
  return Object.entries(fields).filter(([, value]) => value !== null)
    .map(([key, value]) => key === "text" ? value : `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}

addEventListener("resize", () => { if (!due) { due = true; requestAnimationFrame(draw); } });
