// Records that pass a node.

import { $, h, replace, say } from "./dom.js";
import { count } from "./format.js";
import { open } from "./api.js";
import { against } from "./change.js";

const SHOWN_MAX = 200;
const SECONDS = "600";
const LINE_CHARS_MAX = 4 * 1024 * 1024;

let stream = null;
let nodes = "";

/** What goes through, line by line. */
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    rest += value;
    const whole = rest.split("\n");
    rest = whole.pop();
    if (rest.length > LINE_CHARS_MAX) throw new Error("a line of the tap is too long");
    yield* whole.filter(Boolean);
  }
  if (rest.trim()) yield rest;
}

/** A value of OTLP as text. */
function plain(value) {
  if (value === null || typeof value !== "object") return value === undefined ? "" : String(value);
  const [kind, inner] = Object.entries(value)[0] ?? [];
  if (kind === "arrayValue") return `[${(inner.values ?? []).map(plain).join(", ")}]`;
  if (kind === "kvlistValue")
    return `{${(inner.values ?? []).map((pair) => `${pair.key}: ${plain(pair.value)}`).join(", ")}}`;
  return kind?.endsWith("Value") ? String(inner) : JSON.stringify(value);
}

function attributes(title, pairs) {
  if (!Array.isArray(pairs) || !pairs.length) return null;
  return h(
    "div",
    { class: "attributes" },
    h("span", { class: "muted" }, `${title} `),
    pairs.map(({ key, value }) => [h("code", {}, `${key}=${plain(value)}`), " "]),
  );
}

/** Nanoseconds since 1970, which are more than a number holds exactly. */
function time(nanoseconds) {
  if (!nanoseconds || nanoseconds === "0") return "";
  const all = String(nanoseconds).padStart(10, "0");
  const date = new Date(Number(all.slice(0, -9)) * 1000);
  return Number.isNaN(date.getTime()) ? all : `${date.toISOString().slice(0, 19)}.${all.slice(-9)}Z`;
}

/** One record, data point or span: above what it is, its text, what belongs to it. */
function record(value) {
  const { resource, edge, logRecord: log, span, metric } = value;
  const item = log ?? span ?? metric ?? value;
  let above = [];
  let text = JSON.stringify(item, null, 1);
  if (log) {
    above = [
      time(log.timeUnixNano) || time(log.observedTimeUnixNano),
      log.severityText || (log.severityNumber ? `severity ${log.severityNumber}` : ""),
    ];
    text = plain(log.body);
  } else if (span) {
    const ms = (Number(span.endTimeUnixNano) - Number(span.startTimeUnixNano)) / 1e6;
    above = [time(span.startTimeUnixNano), "span", `${ms.toFixed(3)} ms`];
    text = span.name ?? "";
  } else if (metric) {
    above = ["", "data point", metric.unit];
    text = metric.name ?? "";
  }
  if (!above[0]) above[0] = value.time;
  above.push(edge ? `${edge.from} → ${edge.to}` : "", value.truncated ? "cut, it is longer" : "");
  const whole = h("details", {}, h("summary", {}, "All of it"), h("pre", {}, JSON.stringify(value, null, 2)));
  return h(
    "li",
    {},
    h("div", { class: "muted small" }, above.filter(Boolean).join(" · ")),
    h("pre", {}, text),
    attributes("attributes", item.attributes),
    attributes("resource", resource?.attributes),
    whole,
  );
}

function running(is) {
  $("tap-start").textContent = is ? "Stop" : "Start";
  for (const id of ["tap-node", "tap-side", "tap-rate"]) $(id).disabled = is;
}

async function start() {
  const own = new AbortController();
  stream = own;
  const list = $("tap-records");
  list.replaceChildren();
  let [shown, passed, left, missed] = [0, 0, 0, 0];
  const told = (end) => {
    const parts = [
      `${count(shown)} shown`,
      passed && `${count(passed)} passed`,
      left && `${count(left)} left out`,
      missed && `${count(missed)} of these because this page or the tap was too slow`,
    ];
    $("tap-said").textContent = parts.filter(Boolean).join(", ") + (end ? `. Ended: ${end}` : "");
  };
  replace($("tap-error"));
  running(true);
  told("");
  say("The tap is open.");
  let end = "";
  try {
    const query = new URLSearchParams({
      node: $("tap-node").value,
      side: $("tap-side").value,
      rate: $("tap-rate").value,
      seconds: SECONDS,
    });
    const response = await open(`v1/tap?${query}`, { signal: own.signal });
    for await (const line of lines(response)) {
      const said = JSON.parse(line);
      if (said.record !== undefined) {
        shown += 1;
        list.prepend(record(said.record));
        while (list.childElementCount > SHOWN_MAX) list.lastElementChild.remove();
      }
      if (said.passed !== undefined) passed = said.passed;
      if (said.missed !== undefined) missed = said.missed;
      if (said.left_out !== undefined) left = said.left_out;
      if (said.end !== undefined) end = said.end;
      told(end);
    }
  } catch (error) {
    if (!own.signal.aborted) replace($("tap-error"), against(error));
  }
  if (stream !== own) return;
  stream = null;
  running(false);
  told(end || (own.signal.aborted ? "stopped" : ""));
  say("The tap is closed.");
}

function stop() {
  stream?.abort();
}

function form(keys) {
  const option = ([key]) => h("option", { value: key }, key);
  replace(
    $("tap-body"),
    h(
      "form",
      {
        class: "card row start",
        onsubmit: (event) => {
          event.preventDefault();
          if (stream) stop();
          else start();
        },
      },
      h("label", {}, "Node ", h("select", { id: "tap-node", onchange: sides }, keys.map(option))),
      h("label", {}, "Side ", h("select", { id: "tap-side" })),
      h(
        "label",
        {},
        "At most ",
        h(
          "select",
          { id: "tap-rate" },
          [1, 5, 20, 100].map((n) => h("option", { value: n, selected: n === 5 }, `${n} a second`)),
        ),
      ),
      h("button", { type: "submit", class: "main", id: "tap-start" }, "Start"),
    ),
    h("div", { id: "tap-error" }),
    h("p", { class: "muted", id: "tap-said" }, "Records come here, the newest first."),
    h("ol", { class: "records", id: "tap-records", "aria-label": "Records", tabindex: "0" }),
  );
  sides();
}

// A receiver has nothing before it, an exporter nothing behind.
function sides() {
  const kind = $("tap-node").value.split(" ")[0];
  const side = $("tap-side");
  const had = side.value;
  const all = [
    ["out", "what goes out"],
    ["in", "what comes in"],
  ].filter(
    ([value]) => !(kind === "receiver" && value === "in") && !(kind === "exporter" && value === "out"),
  );
  side.replaceChildren(...all.map(([value, name]) => h("option", { value }, name)));
  if (all.some(([value]) => value === had)) side.value = had;
}

/** Builds the form when the nodes are other ones. `what`: node and side to begin with. */
export function show(state, what) {
  if (!state.offers("/v1/tap")) {
    replace($("tap-body"), h("p", { class: "note" }, "This agent has no tap."));
    return;
  }
  const keys = state.graph.nodes
    .filter((node) => node.kind !== "extension" && node.kind !== "pipeline")
    .map((node) => [node.key]);
  const order = ["receiver", "processor", "connector", "exporter"];
  keys.sort((a, b) => order.indexOf(a[0].split(" ")[0]) - order.indexOf(b[0].split(" ")[0]));
  const names = keys.join("\n");
  if (names !== nodes && !stream) {
    nodes = names;
    form(keys);
  }
  const [node, side] = what ?? [];
  if (node && !stream && $("tap-node").value !== node) {
    $("tap-node").value = node;
    sides();
  }
  if (side && !stream) $("tap-side").value = side;
}

/** Nothing flows to a page that does not show it. */
export const leave = stop;
