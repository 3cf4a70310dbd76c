// The live page: asks for cluster/live once a second and draws the answer. What is unknown is a gap.
"use strict";

const PERIOD_MS = 1000;
const SLOWEST_MS = 8000;
const KEPT_S = 120;
const RATE_S = 5;
const GONE_S = 60;
const SILENT_S = 2;
/** above this many workers there are bands, and rows for a few */
const MANY = 20;
const FEW = 10;
const GAP = "–";

const find = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const or = (text) => (value) => (isNumber(value) ? text(value) : GAP);

const digits = (value) => (value >= 99.5 || Number.isInteger(value) ? value.toFixed(0) : value >= 9.95 ? value.toFixed(1) : value.toFixed(2));
const scaled = (value, base, units) => {
  let step = 0;
  while (value >= base * 0.9995 && step < units.length - 1) { value /= base; step += 1; }
  return `${digits(value)}${units[step]}`;
};
const count = or((value) => scaled(value, 1000, ["", " k", " M", " G"]));
const whole = or((value) => Math.round(value).toLocaleString("en"));
const bytes = or((value) => scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]));
const celsius = or((value) => `${Math.round(value)} °C`);
const watts = or((value) => `${Math.round(value)} W`);
const percent = or((value) => `${Math.round(value)} %`);
const seconds = or((value) =>
  value < 0.001 ? `${digits(value * 1e6)} µs` : value < 1 ? `${digits(value * 1000)} ms` : value < 120 ? `${digits(value)} s` : value < 7200 ? `${digits(value / 60)} min` : `${digits(value / 3600)} h`);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const natural = new Intl.Collator("en", { numeric: true }).compare;

// What is remembered between two answers.
const points = [];
const takes = [];
const lastSeen = new Map();
let pauseMs = PERIOD_MS;
let answeredAt = null;
let timer = 0;
let turns = 0;

function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// --- asking ---------------------------------------------------------------------------------

async function poll() {
  clearTimeout(timer);
  const turn = ++turns;
  if (document.hidden) return;
  const token = sessionStorage.getItem("token");
  try {
    const answer = await fetch("cluster/live", {
      cache: "no-store",
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      signal: AbortSignal.timeout(SLOWEST_MS),
    });
    if (turn !== turns) return;
    if (answer.status === 401 || answer.status === 403) {
      const { error } = await answer.json().catch(() => ({ error: "" }));
      ask(token ? error || "This token is not accepted." : "");
      return;
    }
    if (!answer.ok) throw new Error(`the API answers ${answer.status}`);
    const live = await answer.json();
    if (turn !== turns) return;
    show(live);
    answeredAt = Date.now();
    pauseMs = PERIOD_MS;
  } catch (error) {
    if (turn !== turns) return;
    const since = answeredAt ? `, the last answer was ${seconds((Date.now() - answeredAt) / 1000)} ago` : "";
    say("bad", "no answer", `${error.message || error}${since}`);
    clear();
    pauseMs = Math.min(pauseMs * 2, SLOWEST_MS);
  }
  timer = setTimeout(poll, pauseMs);
}

function ask(complaint) {
  say("warn", "token needed", "");
  clear();
  find("login").hidden = false;
  find("forget").hidden = true;
  write(find("refused"), complaint);
  find("token").focus();
}

function say(grade, word, where) {
  const state = find("state");
  state.className = `pill ${grade}`;
  write(state, word);
  write(find("where"), where);
}

/** Draws gaps: figures of a cluster that does not answer are not today's. */
function clear() {
  draw({ status: null, requests: null, models: [], coordinator: null, at: Date.now() / 1000 });
}

function show(live) {
  find("login").hidden = true;
  find("forget").hidden = !sessionStorage.getItem("token");
  const { coordinator, status } = live;
  if (!coordinator) say("good", "serving", live.engine);
  else if (!status) say("bad", "coordinator lost", coordinator.error || live.engine);
  else if (status.workers.length === 0) say("bad", "no worker", live.engine);
  else if (troubles(status).length) say("warn", "in trouble", troubles(status)[0]);
  else say("good", "live", live.engine);
  draw(live);
}

function troubles(status) {
  const cards = status.workers.flatMap((worker) => {
    const load = worker.load || {};
    const one = worker.trouble || (load.gpus || []).map((gpu) => gpu.trouble).find(Boolean) || load.gpu_trouble;
    return one ? [`${worker.worker}: ${one}`] : [];
  });
  const hosts = (status.hosts || []).filter((host) => host.trouble).map((host) => `${host.host}: ${host.trouble}`);
  return [...cards, ...hosts];
}

// --- rates: from the oldest answer of the last RATE_S with the same coordinator -----------------

function remember(live) {
  const { status, coordinator } = live;
  if (!status) { takes.length = 0; return () => null; }
  const take = { at: coordinator.taken_s, counters: status.counters, finished: new Map(status.workers.map((w) => [`${w.worker} ${w.epoch}`, w.finished])) };
  const newest = takes.at(-1);
  if (newest && (take.counters.accepted || 0) < (newest.counters.accepted || 0)) takes.length = 0;
  if (!newest || take.at > newest.at) takes.push(take);
  while (takes.length > 2 && takes[0].at < take.at - RATE_S) takes.shift();
  const oldest = takes[0];
  const passed = take.at - oldest.at;
  return (read) => {
    const [from, to] = [read(oldest), read(take)];
    return passed > 0 && isNumber(from) && isNumber(to) && to >= from ? (to - from) / passed : null;
  };
}

function draw(live) {
  const { status, requests } = live;
  const rate = remember(live);
  const counter = (name) => rate((take) => take.counters[name] || 0);
  const workers = status ? [...status.workers].sort((a, b) => natural(a.worker, b.worker)) : [];
  for (const worker of workers) worker.perSecond = rate((take) => take.finished.get(`${worker.worker} ${worker.epoch}`));
  const queued = status ? sum(Object.values(status.queued)) : null;
  const figures = { queued, done: counter("done"), failed: counter("failed"), assigned: status?.assigned, ...requests };
  drawTiles(figures, status, workers);
  drawCharts(live.at, figures);
  const isAlone = live.coordinator === null && live.requests !== null;
  for (const part of document.querySelectorAll(".of-cluster")) part.hidden = isAlone;
  drawModels(live.models || [], status);
  drawQueues(status);
  drawWorkers(status, workers, live.at);
  drawHosts(status);
}

// --- tiles ------------------------------------------------------------------------------------

function drawTiles(figures, status, workers) {
  const stalest = workers.reduce((worst, worker) => (!worst || worker.silent_s > worst.silent_s ? worker : worst), null);
  const cards = workers.flatMap((worker) => (worker.load?.gpus?.length ? worker.load.gpus : worker.gpus.map(() => ({}))));
  const busy = cards.filter((card) => card.busy_pct > 0).length;
  const known = cards.filter((card) => isNumber(card.busy_pct)).length;
  const draining = workers.filter((worker) => worker.draining).length;
  const window = isNumber(figures.window_s) ? `of the last ${Math.round(figures.window_s)} s` : "";
  const tiles = [
    ["Workers", status ? whole(workers.length) : GAP, draining ? `${draining} draining` : ""],
    ["Stalest worker", stalest ? seconds(stalest.silent_s) : GAP, stalest ? stalest.worker : "", stalest && stalest.silent_s > SILENT_S ? "bad" : ""],
    ["Cards", status ? whole(cards.length) : GAP, known ? `${busy} busy${known < cards.length ? `, ${cards.length - known} unknown` : ""}` : ""],
    ["Queued tasks", count(figures.queued), status?.delayed ? `${count(status.delayed)} wait for a retry` : ""],
    ["Assigned tasks", count(figures.assigned), status ? `${count(sum(workers.map((w) => w.credit)))} at most` : ""],
    ["Tasks per second", count(figures.done), figures.failed ? `${count(figures.failed)}/s failed` : ""],
    ["Requests per second", count(figures.per_s), isNumber(figures.waiting) ? `${count(figures.waiting + figures.in_flight)} open` : ""],
    ["Latency p50", seconds(figures.p50_s), window],
    ["Latency p99", seconds(figures.p99_s), window],
    ["Errors per second", count(figures.errors_per_s), isNumber(figures.refused_per_s) ? `${count(figures.refused_per_s)}/s refused` : ""],
  ];
  const place = find("figures");
  for (const [number, [title, value, note, grade]] of tiles.entries()) {
    if (!place.children[number]) place.append(element("div", { class: "tile" }, element("h3", {}, title), element("p"), element("small")));
    const [, figure, small] = place.children[number].children;
    write(figure, value);
    write(small, note || "");
    figure.className = grade || "";
  }
}

// --- charts -----------------------------------------------------------------------------------

const CHARTS = [
  { title: "Throughput", show: (v) => `${count(v)}/s`, lines: [["done", "tasks"], ["per_s", "requests"]] },
  { title: "Latency of requests", show: seconds, lines: [["p50_s", "p50"], ["p99_s", "p99"]] },
  { title: "Tasks in the cluster", show: count, lines: [["queued", "queued"], ["assigned", "assigned"]] },
];
const CLASSES = ["first", "second", "third"];
const [WIDE, HIGH] = [600, 110];

function drawCharts(at, figures) {
  points.push({ at, ...figures });
  while (points[0].at < at - KEPT_S) points.shift();
  const place = find("charts");
  for (const [number, chart] of CHARTS.entries()) {
    if (!place.children[number]) place.append(newChart(chart));
    drawChart(place.children[number], chart, at);
  }
}

function newChart({ title, lines }) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const paths = ["rule", ...lines.map((_, line) => CLASSES[line])].map((name) => {
    const path = document.createElementNS(space, "path");
    path.setAttribute("class", name);
    svg.append(path);
    return path;
  });
  paths[0].setAttribute("d", `M0 1H${WIDE}M0 ${HIGH / 2}H${WIDE}M0 ${HIGH - 1}H${WIDE}`);
  const keys = lines.map((_, line) => element("span", { class: CLASSES[line] }));
  const key = element("p", { class: "key" }, keys[0], " · ", keys[1]);
  return element("div", { class: "chart" }, element("header", {}, element("h3", {}, title), key), svg,
    element("footer", {}, element("span"), element("span", {}, "last 2 min")));
}

function drawChart(card, { title, show: text, lines }, at) {
  const svg = card.querySelector("svg");
  const most = niceMost(Math.max(0, ...points.flatMap((point) => lines.map(([name]) => point[name] || 0))));
  for (const [line, [name, label]] of lines.entries()) {
    let path = "";
    let isOpen = false;
    for (const point of points) {
      const value = point[name];
      if (isNumber(value)) {
        const x = ((point.at - at + KEPT_S) / KEPT_S) * WIDE;
        const y = HIGH - 1 - (value / most) * (HIGH - 2);
        path += `${isOpen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${isOpen ? "" : "h0"}`;
      }
      isOpen = isNumber(value);
    }
    svg.children[line + 1].setAttribute("d", path);
    write(card.querySelector(`.key .${CLASSES[line]}`), `${label} ${text(points.at(-1)[name])}`);
  }
  svg.setAttribute("aria-label", `${title}: ${card.querySelector(".key").textContent}`);
  write(card.querySelector("footer span"), `0 to ${text(most)}`);
}

function niceMost(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((most) => most >= value * 0.999);
}

// --- tables: rows keep their place, cells change ------------------------------------------------

/** A cell is a text, or {text, small, share, grade}, or a list of those. */
function fillTable(table, columns, rows, empty) {
  if (!table.tHead) {
    const titles = columns.map(({ title, words, wide }) => element("th", { scope: "col", class: `${words ? "words" : ""} ${wide ? "wide" : ""}` }, title));
    table.append(element("thead", {}, element("tr", {}, ...titles)), element("tbody"));
  }
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const wanted = rows.length ? rows.map((row) => ({ ...row, cells: columns.map((column) => column.cell(row.of)) }))
    : [{ key: "\0", empty: true }];
  wanted.forEach((row, place) => {
    let line = known.get(row.key);
    known.delete(row.key);
    if (!line) {
      line = element("tr");
      line.dataset.key = row.key;
      if (row.empty) line.append(element("td", { class: "empty", colspan: columns.length }));
      else line.append(...columns.map(({ title, words }, number) => (number ? element("td", { "data-label": title, class: words ? "words" : "" }) : element("th", { scope: "row" }))));
    }
    if (body.rows[place] !== line) body.insertBefore(line, body.rows[place] || null);
    if (row.empty) { write(line.cells[0], empty); return; }
    line.className = row.grade || "";
    row.cells.forEach((cell, number) => fillCell(line.cells[number], cell));
  });
  for (const row of known.values()) row.remove();
}

function fillCell(node, cell) {
  if (typeof cell === "string") { write(node, cell); return; }
  const parts = Array.isArray(cell) ? cell : [cell];
  while (node.children.length > parts.length) node.lastChild.remove();
  if (node.children.length === 0) node.textContent = "";
  parts.forEach((part, number) => {
    if (!node.children[number]) node.append(element("div", { class: "card" }, element("span"), element("small"), element("span", { class: "bar" }, element("i"))));
    const [text, small, bar] = node.children[number].children;
    write(text, part.text);
    write(small, part.small || "");
    small.hidden = !part.small;
    small.className = part.grade || "";
    bar.hidden = !isNumber(part.share);
    bar.firstChild.style.width = `${Math.min(100, Math.max(0, (part.share || 0) * 100))}%`;
  });
}

/** Models that were asked for, then those that workers serve and nobody has asked for. */
function drawModels(asked, status) {
  const kinds = new Map((status?.kinds || []).map((kind) => [kind.kind, kind]));
  const names = new Set(asked.map((model) => model.model));
  const served = new Set((status?.workers || []).flatMap((worker) => worker.models));
  const idle = [...served].filter((name) => !names.has(name)).sort(natural);
  const models = [...asked, ...idle.map((model) => ({ model, protocol: GAP, total: 0 }))];
  fillTable(find("models"), [
    { title: "Model", cell: (m) => m.model },
    { title: "Protocol", words: true, cell: (m) => m.protocol },
    { title: "Workers", cell: (m) => whole(kinds.get(m.model)?.workers) },
    { title: "Queued", cell: (m) => count(kinds.get(m.model)?.queued) },
    { title: "Requests/s", cell: (m) => count(m.per_s) },
    { title: "p50", cell: (m) => seconds(m.p50_s) },
    { title: "p99", cell: (m) => seconds(m.p99_s) },
    { title: "Errors/s", cell: (m) => count(m.errors_per_s) },
    { title: "Requests", cell: (m) => whole(m.total) },
  ], models.map((model) => ({ key: `${model.model} ${model.protocol}`, of: model })), "No worker serves a model, and none was asked for.");
}

function drawQueues(status) {
  const rows = status ? Object.entries(status.queued).map(([name, queued]) => ({ key: name, of: { name, queued } })) : [];
  const most = Math.max(1, ...rows.map((row) => row.of.queued));
  fillTable(find("queues"), [
    { title: "Priority", cell: (row) => row.name },
    { title: "Queued tasks", cell: (row) => ({ text: count(row.queued), share: row.queued / most }) },
  ], rows, "Unknown: no coordinator answers.");
}

function cardCell(worker) {
  const loads = worker.load?.gpus || [];
  if (!worker.gpus.length) return worker.load?.gpu_trouble ? { text: "", small: worker.load.gpu_trouble, grade: "bad" } : "none";
  return worker.gpus.map((gpu, number) => {
    const load = loads[number] || {};
    const used = isNumber(gpu.memory_bytes) && isNumber(load.free_bytes) ? gpu.memory_bytes - load.free_bytes : null;
    const memory = isNumber(gpu.memory_bytes) ? `${bytes(used)} of ${bytes(gpu.memory_bytes)}` : "memory unknown";
    const sensors = [celsius(load.temperature_c), watts(load.power_w)].filter((fact) => fact !== GAP);
    const facts = [load.asleep ? "asleep" : percent(load.busy_pct), memory, ...sensors];
    const trouble = load.trouble || worker.load?.gpu_trouble;
    return { text: `${gpu.family || "card"}: ${facts.join(", ")}`, small: trouble || "", grade: trouble ? "bad" : "", share: isNumber(load.busy_pct) ? load.busy_pct / 100 : null };
  });
}

function workerState(worker) {
  if (worker.goneAt) return { text: "gone", small: `for ${seconds(worker.goneAt)}`, grade: "bad" };
  if (worker.silent_s > SILENT_S) return { text: "silent", small: "", grade: "bad" };
  return { text: worker.draining ? "draining" : "here", small: worker.trouble || "", grade: "bad" };
}

function modelsCell(worker) {
  const missing = (worker.wanted || []).filter((name) => !worker.models.includes(name));
  return { text: worker.models.join(", ") || GAP, small: missing.length ? `wanted: ${missing.join(", ")}` : "" };
}

const WORKER_COLUMNS = [
  { title: "Worker", cell: (w) => ({ text: w.worker, small: `${w.host}, pid ${w.pid}` }) },
  { title: "State", words: true, cell: workerState },
  { title: "Holds", cell: (w) => ({ text: `${whole(w.held)} of ${whole(w.credit)}`, share: w.credit ? w.held / w.credit : null }) },
  { title: "Tasks/s", cell: (w) => count(w.perSecond) },
  { title: "Task p99", cell: (w) => seconds(w.service_s_p99) },
  { title: "Finished", cell: (w) => whole(w.finished) },
  { title: "Last heard", cell: (w) => seconds(w.silent_s) },
  { title: "Memory", cell: (w) => bytes(w.load?.rss_bytes) },
  { title: "Cards", words: true, wide: true, cell: cardCell },
  { title: "Models", words: true, cell: modelsCell },
];

function drawWorkers(status, workers, at) {
  for (const worker of workers) lastSeen.set(worker.worker, { ...worker, at });
  for (const [name, worker] of lastSeen) if (at - worker.at > GONE_S) lastSeen.delete(name);
  const here = new Set(workers.map((worker) => worker.worker));
  const gone = !status ? [] : [...lastSeen.values()].filter((worker) => !here.has(worker.worker))
    .map((worker) => ({ ...worker, goneAt: Math.max(at - worker.at, 0.001), held: null, perSecond: null, silent_s: null, load: {}, gpus: [] }));
  const isMany = workers.length > MANY;
  const sought = isMany ? find("filter").value.trim() : "";
  const all = [...workers, ...gone].sort((a, b) => natural(a.worker, b.worker));
  const rows = !isMany ? all : sought ? all.filter((worker) => worker.worker.includes(sought)).slice(0, FEW) : worstOf(all);
  find("filter-row").hidden = find("bands").hidden = !isMany;
  write(find("workers-note"), isMany ? `${workers.length}; below are ${sought ? "those sought" : "those in trouble first"}, at most ${FEW}` : "");
  fillTable(find("workers"), WORKER_COLUMNS, rows.map((worker) => ({ key: worker.worker, of: worker, grade: worker.goneAt ? "gone" : "" })),
    status ? "No worker has joined." : "Unknown: no coordinator answers.");
  if (isMany) drawBands(workers);
}

/** A few workers that are worth a look, the worst first. */
function worstOf(workers) {
  const grade = (worker) => (worker.goneAt ? 3 : worker.trouble || worker.load?.gpu_trouble || worker.load?.gpus?.some((gpu) => gpu.trouble) ? 2 : worker.draining ? 1 : 0);
  const stale = (worker) => (worker.silent_s > SILENT_S ? Math.round(worker.silent_s) : 0);
  return [...workers].sort((a, b) => grade(b) - grade(a) || stale(b) - stale(a) || natural(a.worker, b.worker)).slice(0, FEW);
}

// --- bands: the least, the middle half, the median and the most of many workers -----------------

const BANDS = [
  ["Tasks held", (w) => [w.held], count],
  ["Tasks per second", (w) => [w.perSecond], count],
  ["Task p99", (w) => [w.service_s_p99], seconds],
  ["Last heard", (w) => [w.silent_s], seconds],
  ["Memory", (w) => [w.load?.rss_bytes], bytes],
  ["Cards busy", (w) => (w.load?.gpus || []).map((gpu) => gpu.busy_pct), percent],
  ["Temperature of cards", (w) => (w.load?.gpus || []).map((gpu) => gpu.temperature_c), celsius],
  ["Power of cards", (w) => (w.load?.gpus || []).map((gpu) => gpu.power_w), watts],
];

function drawBands(workers) {
  const place = find("bands");
  for (const [number, [title, read, text]] of BANDS.entries()) {
    if (!place.children[number]) place.append(newBand(title));
    const values = workers.flatMap(read).filter(isNumber).sort((a, b) => a - b);
    const [least, low, middle, high, most] = [0, 0.25, 0.5, 0.75, 1].map((share) => (values.length ? values[Math.round(share * (values.length - 1))] : null));
    place.children[number].hidden = values.length === 0;
    const scale = most > 0 ? WIDE / most : 0;
    const [svg, words] = [place.children[number].querySelector("svg"), place.children[number].querySelector("p")];
    const boxes = [[least, most, 0], [low, high, 0], [middle, middle, 4]];
    boxes.forEach(([from, to, wide], box) => {
      svg.children[box].setAttribute("x", String(Math.min((from || 0) * scale, WIDE - wide)));
      svg.children[box].setAttribute("width", String(values.length ? Math.max((to - from) * scale, wide) : 0));
    });
    const told = [`least ${text(least)}`, `median ${text(middle)}`, `most ${text(most)}`];
    told.forEach((part, number) => write(words.children[number], part));
    svg.setAttribute("aria-label", `${title} of ${values.length}: ${told.join(", ")}`);
  }
}

function newBand(title) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDE} 22`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  for (const [name, y, height] of [["all", 7, 8], ["half", 5, 12], ["middle", 2, 18]]) {
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    box.setAttribute("class", name);
    box.setAttribute("y", y);
    box.setAttribute("height", height);
    svg.append(box);
  }
  return element("div", { class: "band" }, element("h3", {}, title), svg, element("p", {}, element("span"), element("span"), element("span")));
}

function drawHosts(status) {
  const all = [...(status?.hosts || [])].sort((a, b) => natural(a.host, b.host));
  const worst = (host) => (host.trouble ? 2 : host.silent_s > SILENT_S ? 1 : 0);
  const hosts = all.length > MANY ? all.sort((a, b) => worst(b) - worst(a) || b.restarts - a.restarts).slice(0, FEW) : all;
  write(find("hosts-note"), all.length > MANY ? `${all.length}; below are those in trouble and with most restarts, at most ${FEW}` : "");
  find("hosts-section").hidden = hosts.length === 0;
  fillTable(find("hosts"), [
    { title: "Host", cell: (host) => host.host },
    { title: "Workers", cell: (host) => whole(host.workers) },
    { title: "Restarts", cell: (host) => whole(host.restarts) },
    { title: "Last heard", cell: (host) => seconds(host.silent_s) },
    { title: "Trouble", words: true, cell: (host) => (host.trouble ? { text: "", small: host.trouble, grade: "bad" } : "none") },
  ], hosts.map((host) => ({ key: host.host, of: host })), "");
}

// --- the beginning ------------------------------------------------------------------------------

find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", find("token").value.trim());
  find("token").value = "";
  poll();
});
find("forget").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  points.length = 0;
  lastSeen.clear();
  poll();
});
document.addEventListener("visibilitychange", poll);
clear();
say("warn", "connecting", "");
poll();
