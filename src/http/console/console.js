// The console: shows what /api/v1/stream tells, every second. All text comes in as text and is put in as text.
"use strict";

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-GB");
const short = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });

// What each stage is called, and what it does.
const STAGES = {
  opened: ["Source", "reads events into the open epoch"],
  cut: ["Cut", "makes the epoch's ranges durable"],
  decoded: ["Decode", "checks R000 to R140"],
  distinct: ["Distinct", "tells duplicates and late events"],
  aggregated: ["Metrics", "adds up what was accepted"],
  delivered: ["Deliver", "hands rows to the writer"],
  published: ["Publish", "commits to every table"],
  checkpointed: ["Checkpoint", "a restart goes on from here"],
};

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function set(id, text) {
  const at = $(id);
  if (at.textContent !== text) at.textContent = text;
}

// Panels are made anew only when what they show has changed: a selection and the focus stay.
const shown = new Map();
function once(name, value, make) {
  const key = JSON.stringify(value);
  if (shown.get(name) === key) return;
  shown.set(name, key);
  make(value);
}

function count(number) { return Math.abs(number) < 1e7 ? whole.format(number) : compact.format(number); }
function rate(number) { return number >= 100 ? count(Math.round(number)) : short.format(number); }
function pounds(text) {
  const [, sign, digits, pence] = /^(-?)(\d+)\.(\d\d)$/.exec(text) || [];
  return digits === undefined ? text : `${sign ? "−" : ""}£${digits.replace(/\B(?=(\d{3})+$)/g, ",")}.${pence}`;
}
function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit++; }
  return `${short.format(number)} ${units[unit]}`;
}
function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${short.format(seconds)} s`;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.round(seconds);
  const told = [];
  for (const [unit, length] of parts) {
    if (left >= length && told.length < 2) { told.push(`${Math.floor(left / length)} ${unit}`); left %= length; }
    else if (told.length) break;
  }
  return told.join(" ");
}
function moment(text) { return text ? text.replace("T", " ").replace(/(\.\d{3})\d*/, "$1").replace("Z", "") : "–"; }
function share(part, all) { return all ? `${short.format((100 * part) / all)} %` : "–"; }

function showState(status) {
  const kinds = { running: status.ready ? "good" : "bad", starting: "warn", stopping: "warn" };
  badge(status.state === "running" ? (status.ready ? "running" : "not ready") : status.state, kinds[status.state] || "quiet");
  const kind = status.state === "running" ? "bad" : "warn";
  once("reasons", [status.reasons, kind], ([reasons]) => {
    const at = $("reasons");
    at.hidden = reasons.length === 0;
    at.dataset.kind = kind;
    at.replaceChildren(node("ul", {}, ...reasons.map((reason) => node("li", {}, reason))));
  });
  set("pipeline", status.pipeline);
  set("source", status.source);
  set("output", status.output && `→ ${status.output}`);
  set("uptime", `up ${span(Math.floor(status.uptime_seconds))}`);
  set("version", `Tidemark ${status.version}`);
  document.title = `${status.ready ? "" : "⚠ "}${status.pipeline} · Tidemark`;
}

function badge(text, kind) {
  set("state", text);
  $("state").dataset.kind = kind;
}

function showTiles({ status, tables }) {
  const { events, rates, read, time } = status;
  set("t-read", rate(rates.read_per_second));
  set("t-read-sub", read.total_bytes ? `${share(read.bytes, read.total_bytes)} of ${bytes(read.total_bytes)}` : `${bytes(rates.bytes_per_second)}/s`);
  for (const outcome of ["accepted", "duplicates", "rejected"]) {
    set(`t-${outcome}`, count(events[outcome]));
    set(`t-${outcome}-sub`, `${share(events[outcome], events.received)} · ${rate(rates[`${outcome}_per_second`])}/s`);
  }
  const alarming = rates.decided_per_second > 0 && rates.rejected_per_second > 0.2 * rates.decided_per_second;
  $("tile-rejected").classList.toggle("alarm", alarming);
  set("t-latency", span(tables.latency_seconds));
  if (read.lag_events !== null) {
    set("t-lag", count(read.lag_events));
    set("t-lag-sub", `events waiting, ${span(read.lag_seconds)}`);
  } else {
    set("t-lag", span(time.event_time_lag_seconds));
    set("t-lag-sub", "event time behind the newest epoch");
  }
}

function showFlow(graph) {
  once("flow", graph, ({ stages, stuck_at, in_flight }) => {
    $("flow").replaceChildren(...stages.map((stage) => {
      const [name, what] = STAGES[stage.name] || [stage.name, ""];
      const stuck = stage.name === stuck_at, waits = stage.behind > 1 && stage.name !== "checkpointed";
      const unit = ["delivered", "published"].includes(stage.name) ? "rows/s" : "events/s";
      const behind = stuck ? `stuck for ${span(Math.floor(stage.waiting_seconds))}, ${count(stage.behind)} waiting`
        : stage.behind > 0 && stage.name !== "checkpointed" ? `${count(stage.behind)} waiting` : "";
      const kind = `${stage.name === "checkpointed" ? "aside " : ""}${stuck ? "stuck" : waits ? "waits" : ""}`.trim();
      return node("li", { class: kind || undefined, "data-stage": stage.name },
        node("p", { class: "stage" }, name), node("p", { class: "what" }, what),
        node("p", { class: "epoch" }, node("span", { class: "hidden" }, "finished "), `epoch ${count(stage.epoch)}`),
        node("p", { class: "rate" }, stage.name === "checkpointed" ? `${count(stage.behind)} epochs since` : `${rate(stage.per_second)} ${unit}`),
        node("p", { class: "lagging" }, behind));
    }));
    const last = stuck_at && (STAGES[stuck_at] || [stuck_at])[0];
    set("flow-note", last ? `Stuck at ${last}` : `${count(in_flight)} ${in_flight === 1 ? "epoch" : "epochs"} on the way`);
  });
}

function rows(id, made, columns, none) {
  const empty = node("tr", {}, node("td", { class: "empty", colspan: columns }, none));
  $(id).tBodies[0].replaceChildren(...(made.length ? made : [empty]));
}
const cell = (text, kind) => node("td", { class: kind }, text);
const head = (...children) => node("th", { scope: "row" }, ...children);

function showMetrics(tables) {
  once("metrics", [tables.net_flow, tables.top_users, tables.channels], ([net, users, channels]) => {
    set("m-net", pounds(net.net_flow));
    set("m-deposits", pounds(net.total_deposits));
    set("m-withdrawals", pounds(net.total_withdrawals));
    set("m-deposit-count", `${count(net.deposit_count)} events`);
    set("m-withdrawal-count", `${count(net.withdrawal_count)} events`);
    const at = (channel, type) => {
      const found = channels.find((row) => row.channel === channel && row.event_type === type);
      const made = cell(found ? pounds(found.total_amount) : "–", "n");
      made.append(node("small", {}, found ? `${count(found.event_count)} events` : ""));
      return made;
    };
    rows("channels", ["web", "mobile", "api"].map((channel) =>
      node("tr", {}, head(channel), at(channel, "deposit_completed"), at(channel, "withdrawal_completed"))), 3, "");
    rows("users", users.map((user) => node("tr", {}, head(user.user_id), cell(pounds(user.total_deposits), "n"),
      cell(pounds(user.total_withdrawals), "n"), cell(count(user.deposit_count + user.withdrawal_count), "n"))), 4, "No user yet.");
  });
  set("metrics-note", `as of epoch ${count(tables.epoch)}, in every table`);
  set("tables-note", `${count(tables.publications)} publications`);
  once("tables", tables.tables, (all) => rows("tables", all.map((table) => node("tr", {}, head(table.name),
    cell(count(table.version), "n"), cell(count(table.epoch), "n"), cell(span(table.last_commit_seconds), "n"),
    cell(span(table.mean_commit_seconds), "n"), cell(count(table.failures), "n"))), 6, "No table yet."));
}

function showContract(contract) {
  once("contract", contract, ({ events, rules }) => {
    set("contract-note", `${count(events.rejected)} of ${count(events.received)} rejected, ${share(events.rejected, events.received)}`);
    const most = Math.max(1, ...rules.map((rule) => rule.rejected));
    const order = [...rules].sort((a, b) => (b.rejected > 0) - (a.rejected > 0));
    rows("rules", order.map((rule) => {
      const bar = svg("svg", { "aria-hidden": "true", viewBox: "0 0 100 9", preserveAspectRatio: "none" });
      bar.append(svg("rect", { class: "bar-track", width: 100, height: 9, rx: 2 }), svg("rect", { class: "bar", width: (100 * rule.rejected) / most, height: 9, rx: 2 }));
      const meaning = rule.rejected > 0 ? node("small", {}, rule.meaning.replaceAll("`", "")) : null;
      return node("tr", { class: rule.rejected ? undefined : "none", title: rule.meaning.replaceAll("`", "") },
        head(rule.name, meaning), cell(count(rule.rejected), "n"), node("td", { class: "bars" }, bar));
    }), 3, "");
  });
}

let seen = null;
function showQuarantine({ events }) {
  once("quarantine", events, () => {
    const known = seen;
    seen = new Set(events.map((event) => `${event.partition}:${event.offset}`));
    rows("quarantine", events.map((event) => node("tr", { class: known && !known.has(`${event.partition}:${event.offset}`) ? "fresh" : undefined },
      node("td", { class: "when" }, moment(event.at)), cell(event.reason, "rule"), node("td", {}, node("code", {}, event.event_id ?? "–")),
      cell(`${event.partition}:${event.offset}`, "mono"), node("td", { class: "payload" }, node("code", {}, event.masked_payload)))), 5,
      "Nothing was rejected so far.");
  });
}

function pairs(id, entries) {
  once(id, entries.map(([name, value]) => [name, value instanceof Node ? value.textContent : value]), () => {
    $(id).replaceChildren(...entries.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)]));
  });
}

// What holds the watermark back: a partition that is behind, and in time behind the others.
function heldBack(held) {
  if (!held) return "by nothing";
  const come = held.event_time === null ? "not known how far it has come" : `at ${moment(held.event_time)}, ${span(held.behind_seconds)} behind the newest event`;
  return `by partition ${held.partition} for ${span(Math.floor(held.since_seconds))}: ${come}`;
}

function showTime(time) {
  const memory = node("span", {}, node("meter", { min: 0, max: Math.max(1, time.expected_ids), value: time.remembered_ids, high: time.expected_ids * 0.9, optimum: 0, "aria-label": "Remembered ids of those that room was made for" }),
    `${count(time.remembered_ids)} of ${count(time.expected_ids)} expected`);
  pairs("times", [
    ["Now", moment(time.now.replace(/\.\d+/, ""))],
    ["Newest event", moment(time.newest_event_time)],
    ["Watermark", `${moment(time.watermark)}${time.watermark ? "" : " (before the first events)"}`],
    ["Held back", heldBack(time.held_back)],
    ["Delay", `${span(time.watermark_delay_seconds)} behind what event time has come to`],
    ["Remembered ids", memory],
    ["Their memory", bytes(time.index_bytes)],
    ["Remembered for", `${span(time.retention_seconds)} of event time`],
    ["Next expiry", time.next_expiry === null ? "–" : `${moment(time.next_expiry)}${time.next_expiry_in_seconds === null ? "" : `, when the watermark has moved ${span(Math.max(0, time.next_expiry_in_seconds))}`}`],
  ]);
}

function showCheckpoints(kept) {
  if (!kept.enabled) return pairs("checkpoints", [["Kept", "no: checkpoint.enabled is false"]]);
  const restored = kept.restore;
  pairs("checkpoints", [
    ["Newest", kept.written ? `epoch ${count(kept.epoch)}, written ${moment(kept.written)}` : "none yet"],
    ["Age", kept.age_seconds === null ? "–" : `${span(Math.floor(kept.age_seconds))} (one each ${span(kept.interval_seconds)} while events come)`],
    ["Size", `${bytes(kept.bytes)} in ${count(kept.runs)} runs, ${count(kept.rows)} rows`],
    ["Took", span(kept.last_seconds)],
    ["Written", `${count(kept.count)} since the start`],
    ["Restored", restored ? `epoch ${count(restored.epoch)} in ${span(restored.seconds)}: ${count(restored.ids)} ids, ${bytes(restored.bytes)}, and ${count(restored.replayed_epochs)} epochs again` : "nothing: a new pipeline"],
  ]);
}

function showServices(status) {
  const services = status.services.map(({ name, healthy, reason, since_seconds, failures }) => [name, healthy, reason, span(Math.floor(since_seconds / 10) * 10), failures]);
  once("services", services, () => {
    $("services").replaceChildren(...services.map(([name, healthy, reason, since, failures]) => node("li", { class: healthy ? undefined : "bad" },
      node("span", { class: "dot", "aria-hidden": "true" }, "●"),
      node("span", {}, name, node("small", {}, healthy ? (failures ? ` works again, failed ${count(failures)} times` : " works") : ` fails for ${since}: ${reason}`)))));
  });
  const { usage } = status;
  set("usage", [usage.cpu_cores !== null ? `${short.format(usage.cpu_cores)} cores` : null, usage.resident_bytes !== null ? bytes(usage.resident_bytes) : null,
    `${status.workers} ${status.workers === 1 ? "worker" : "workers"}`, status.processes > 1 ? `${status.processes} processes` : null].filter(Boolean).join(" · "));
  once("partitions", [status.partitions, status.partition_count], ([partitions, all]) => {
    const made = partitions.map((one) => node("tr", {}, head(one.name), cell(count(one.next_offset), "n"), cell(one.lag_events === null ? "–" : count(one.lag_events), "n")));
    if (all > partitions.length) made.push(node("tr", {}, node("td", { colspan: 3 }, `and ${count(all - partitions.length)} more`)));
    rows("partitions", made, 3, "No partition yet.");
  });
}

const throughput = new LineChart($("chart-throughput"), "Events per second", [
  { name: "read/s", of: (point) => point.read }, { name: "accepted/s", of: (point) => point.accepted }, { name: "rejected/s", of: (point) => point.rejected },
], (value) => (value >= 1000 ? compact.format(value) : short.format(value)));
const latency = new LineChart($("chart-latency"), "Latency", [{ name: "latency", of: (point) => point.latency }], span);
let past = { step_seconds: 2, until: 0, points: [] };

function showCharts() {
  // A young past is shown large.
  const known = Math.max(60, past.points.length * past.step_seconds);
  const seconds = Math.min(known, Number(document.querySelector("input[name=span]:checked").value));
  for (const chart of [throughput, latency]) chart.show(past.points, past.step_seconds, past.until, seconds);
}
document.querySelectorAll("input[name=span]").forEach((choice) => choice.addEventListener("change", showCharts));

function take(newest) {
  if (newest.at <= past.until) return;
  past.until = newest.at;
  past.points = [...past.points, newest.point].slice(-1800);
  showCharts();
}

let heard = 0, started = null;
async function show(all) {
  heard = performance.now();
  document.body.classList.remove("stale");
  if (all.status.started !== started) {
    // Another process than before: its past is another one as well.
    started = all.status.started;
    seen = null;
    past = await (await ask("/api/v1/history")).json();
    showCharts();
  }
  showState(all.status);
  showTiles(all);
  showFlow(all.graph);
  showMetrics(all.tables);
  showContract(all.contract);
  showQuarantine(all.quarantine);
  showTime(all.status.time);
  showCheckpoints(all.checkpoints);
  showServices(all.status);
  take(all.newest);
}

function ask(path, options) {
  const token = sessionStorage.getItem("token");
  return fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} });
}

// Reads events as they come: `fetch` can send a token, which `EventSource` cannot.
async function listen() {
  const stop = new AbortController();
  const watch = setInterval(() => { if (performance.now() - heard > 8000) stop.abort(); }, 2000);
  heard = performance.now();
  try {
    const answer = await ask("/api/v1/stream", { signal: stop.signal });
    if (answer.status === 401) return login();
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    $("login").hidden = true;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) await show(JSON.parse(text.slice(6, end)));
    }
  } catch {
    // Said below: whatever it was, it is tried again.
  } finally {
    clearInterval(watch);
  }
  if ($("login").hidden) {
    badge("no answer, trying again", "quiet");
    document.body.classList.add("stale");
  }
  setTimeout(listen, 1000);
}

function login() {
  set("login-problem", sessionStorage.getItem("token") ? "That is not the token." : "");
  badge("locked", "warn");
  $("login").hidden = false;
  $("token").focus();
}
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  listen();
});

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").querySelector("b").textContent = name;
  localStorage.setItem("theme", name);
}
$("theme").addEventListener("click", () => {
  theme(THEMES[(THEMES.indexOf(localStorage.getItem("theme") || "auto") + 1) % THEMES.length]);
});
theme(THEMES.find((name) => name === localStorage.getItem("theme")) || "auto");

setInterval(() => set("age", heard ? `updated ${span(Math.round((performance.now() - heard) / 1000))} ago` : ""), 1000);
listen();
