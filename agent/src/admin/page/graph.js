// The graph: drawn, as a table, and what there is to say of one node.

import { $, h, s, sign, STATES, table, replace, update } from "./dom.js";
import { count, rate, bytes, seconds, ITEMS, NUMBERS } from "./format.js";
import { wide, narrow, drawn, depth } from "./layout.js";
import { flows } from "./rates.js";

const NARROW_PX = 720;
/** How wide a drawing is at most whose nodes are below each other. */
const COLUMN_PX = 560;
/** How small a drawing may get to fit: what is smaller cannot be read. */
const SCALE_MIN = 0.75;
// Of the scrolled part, both sides.
const PADDING_PX = 8;
let chosen = null;
let latest = null;
let shape = null;

const short = { "waiting for the one before it": "waiting" };

/** What is most telling of a node, in a few words each. */
function figures(node, rates) {
  const n = node.numbers;
  const per = (name) => rate(rates.of(node.key, name));
  const all = [];
  if (node.kind === "receiver") {
    all.push(per("items_out"));
    if (n.lag_bytes > 0) all.push(`lag ${bytes(n.lag_bytes)}`);
    else if (n.files > 0) all.push("no lag");
  } else if (node.kind === "processor" || node.kind === "connector") {
    const [i, o] = [rates.of(node.key, "items_in"), rates.of(node.key, "items_out")];
    // Batches that are under way between two looks are no difference.
    const differ = i !== null && o !== null && Math.abs(i - o) > Math.max(i, o) / 10;
    if (n.items_in !== undefined || n.items_out !== undefined)
      all.push(differ ? `${rate(i)} → ${rate(o)}` : rate(o ?? i));
  } else if (node.kind === "exporter") {
    all.push(per("items_out"));
    if (n.queue_size !== undefined) all.push(`queue ${count(n.queue_size)}/${count(n.queue_capacity)}`);
  }
  return all.filter(Boolean);
}

function card(box, rates) {
  const { node } = box;
  const trouble = node.state !== "running";
  const line = trouble ? (short[node.state] ?? node.state) : figures(node, rates).join(" · ");
  const element = h(
    "button",
    {
      type: "button",
      class: `node ${node.kind} ${trouble ? "off" : ""}`,
      "data-key": node.key,
      "data-state": node.state,
      "aria-pressed": String(chosen === node.key),
      onclick: () => choose(node.key),
      title: node.key,
    },
    h(
      "span",
      { class: "what" },
      sign(node.state),
      h("span", { class: "hidden" }, `${node.state}: `),
      node.kind === "pipeline"
        ? [h("span", { class: "hidden" }, "pipeline "), h("b", {}, node.id)]
        : `${node.kind} · ${node.signal}`,
    ),
    node.kind === "pipeline" ? null : h("b", {}, node.id),
    node.kind === "pipeline" ? null : h("span", { class: "figures" }, line),
  );
  Object.assign(element.style, {
    left: `${box.x}px`,
    top: `${box.y}px`,
    width: `${box.w}px`,
    height: `${box.h}px`,
  });
  return element;
}

function edgeLine(line, flow) {
  const moving = flow.rate !== null && flow.rate > 0;
  const weight = moving ? Math.min(6, 1.6 + Math.log10(1 + flow.rate) * 0.7) : 1.4;
  return s("path", {
    d: line.d,
    class: moving ? "moving" : "still",
    "stroke-width": weight.toFixed(1),
    "marker-end": "url(#arrow)",
    "data-edge": `${line.edge.from} -> ${line.edge.to}`,
  });
}

function edgeLabel(line, flow) {
  if (!line.label || flow.rate === null) return null;
  const title = flow.near ? "worked out from what comes before" : "counted";
  const element = h(
    "span",
    { class: flow.rate > 0 ? "rate" : "rate zero", title },
    `${flow.near && flow.rate > 0 ? "≈ " : ""}${rate(flow.rate)}`,
  );
  Object.assign(element.style, { left: `${line.label[0]}px`, top: `${line.label[1]}px` });
  return element;
}

/** How the graph is drawn in `room`: all of it is seen at once from side to side. */
function fitted(graph, room) {
  if (room >= NARROW_PX) {
    const layout = wide(graph, room);
    const scale = Math.min(1, room / layout.width);
    if (scale >= SCALE_MIN) return { layout, scale };
  }
  return { layout: narrow(graph, Math.min(room, COLUMN_PX)), scale: 1 };
}

function draw({ graph, rates }) {
  const place = $("drawing");
  const room = place.clientWidth - PADDING_PX;
  const { layout, scale } = fitted(graph, room);
  const flow = new Map(flows(graph, rates).map((f, i) => [graph.edges[i], f]));
  const lines = layout.lines.map((line) => [line, flow.get(line.edge)]);
  const svg = s(
    "svg",
    { width: layout.width, height: layout.height, "aria-hidden": "true" },
    s(
      "defs",
      {},
      s(
        "marker",
        {
          id: "arrow",
          viewBox: "0 0 8 8",
          refX: "7",
          refY: "4",
          markerWidth: "8",
          markerHeight: "8",
          markerUnits: "userSpaceOnUse",
          orient: "auto",
        },
        s("path", { d: "M0 .5 7.5 4 0 7.5z" }),
      ),
    ),
    lines.map(([line, f]) => edgeLine(line, f)),
  );
  const order = [...layout.boxes.values()].sort((a, b) => a.x - b.x || a.y - b.y);
  const sheet = h(
    "div",
    { class: "sheet" },
    svg,
    h(
      "div",
      {},
      lines.map(([line, f]) => edgeLabel(line, f)),
    ),
    h(
      "div",
      {},
      order.map((box) => card(box, rates)),
    ),
  );
  Object.assign(sheet.style, { width: `${layout.width}px`, height: `${layout.height}px`, zoom: scale });
  update(place, sheet);
  // What can be moved sideways must be within reach of the keyboard.
  place.tabIndex = place.scrollWidth > place.clientWidth ? 0 : -1;
}

function legend() {
  const states = STATES.map((state) => h("span", {}, sign(state), state));
  replace(
    $("legend"),
    states,
    h(
      "span",
      {},
      s(
        "svg",
        { class: "sample", viewBox: "0 0 34 8", "aria-hidden": "true" },
        s("path", { d: "M1 4H33", class: "moving", "stroke-width": "3" }),
      ),
      "moves: the thicker, the more",
    ),
    h(
      "span",
      {},
      s(
        "svg",
        { class: "sample", viewBox: "0 0 34 8", "aria-hidden": "true" },
        s("path", { d: "M1 4H33", class: "still", "stroke-width": "1.4" }),
      ),
      "still",
    ),
  );
}

function rows({ graph, rates }) {
  const per = (node, name) => (node.numbers[name] === undefined ? "" : rate(rates.of(node.key, name)));
  const bad = (node) => {
    const n = (node.numbers.failed ?? 0) + (node.numbers.refused ?? 0);
    return node.numbers.failed === undefined && node.numbers.refused === undefined ? "" : count(n);
  };
  const queue = (n) =>
    n.queue_size === undefined ? "" : `${count(n.queue_size)} of ${count(n.queue_capacity)}`;
  const lag = (n) => {
    if (n.lag_bytes === undefined) return "";
    return n.lag_bytes > 0 ? `${bytes(n.lag_bytes)}, ${seconds(n.lag_seconds ?? 0)}` : "none";
  };
  const to = (node) =>
    graph.edges.filter((edge) => edge.from === node.key).map((edge) => h("div", {}, edge.to));
  const before = depth(graph);
  const order = [...graph.nodes].sort(
    (a, b) =>
      KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) ||
      (a.pipeline ?? "").localeCompare(b.pipeline ?? "") ||
      (before.get(a.key) ?? 0) - (before.get(b.key) ?? 0),
  );
  return order.map((node) => [
    h(
      "button",
      { type: "button", class: "link", "data-key": `row ${node.key}`, onclick: () => choose(node.key) },
      node.key,
    ),
    h(
      "span",
      { class: `state ${node.state === "running" ? "" : "off"}`, "data-state": node.state },
      sign(node.state),
      short[node.state] ?? node.state,
    ),
    per(node, "items_in"),
    per(node, "items_out"),
    queue(node.numbers),
    lag(node.numbers),
    bad(node),
    to(node),
  ]);
}

const KINDS = ["receiver", "pipeline", "processor", "connector", "exporter", "extension"];
const HEADS = [
  ["Node", "name"],
  ["State"],
  ["In", "n"],
  ["Out", "n"],
  ["Queue", "n"],
  ["Lag", "n"],
  ["Failed, refused", "n"],
  ["Goes to", "small"],
];

/** Chooses a node, or none. */
export function choose(key) {
  const again = chosen === key;
  const before = chosen;
  chosen = again ? null : key;
  if (latest) show(latest);
  if (chosen) {
    $("details-title").focus();
    $("details").scrollIntoView({ block: "nearest" });
  } else if (before) {
    document.querySelector(`#drawing [data-key="${CSS.escape(before)}"]`)?.focus();
  }
}

function details({ graph, rates, offers }) {
  const place = $("details");
  const node = graph.nodes.find((n) => n.key === chosen);
  place.hidden = !node;
  if (!node) return replace(place);
  const items = ITEMS[node.signal] ?? "items";
  const facts = Object.entries(node.numbers).filter(([name]) => NUMBERS[name]);
  const fact = ([name, value]) =>
    h("div", {}, h("dt", {}, NUMBERS[name][0]), h("dd", {}, NUMBERS[name][1](value)));
  const flow = ["items_in", "items_out"]
    .filter((name) => node.numbers[name] !== undefined)
    .map((name) =>
      h(
        "div",
        {},
        h("dt", {}, `${items} ${name === "items_in" ? "in" : "out"}`),
        h("dd", {}, rate(rates.of(node.key, name))),
      ),
    );
  const tapped = offers("/v1/tap") && node.kind !== "extension" && node.kind !== "pipeline";
  const tap = (side, text) =>
    h(
      "a",
      { class: "button", "data-key": `tap ${side}`, href: `#tap/${encodeURIComponent(node.key)}/${side}` },
      text,
    );
  return update(
    place,
    h(
      "div",
      { class: "row" },
      h(
        "h2",
        { id: "details-title", tabindex: "-1", "data-key": `title ${node.key}` },
        sign(node.state),
        " ",
        node.key,
      ),
      h(
        "button",
        { type: "button", class: "quiet", "data-key": "close", onclick: () => choose(chosen) },
        "Close",
      ),
    ),
    h("p", { class: node.state === "running" ? "muted" : "off", "data-state": node.state }, node.state),
    node.reasons.length
      ? h(
          "ul",
          { class: "reasons" },
          node.reasons.map((reason) => h("li", {}, reason)),
        )
      : null,
    h("dl", { class: "facts" }, flow, facts.map(fact)),
    tapped
      ? h(
          "p",
          { class: "row start" },
          node.kind === "receiver" ? null : tap("in", "Tap what comes in"),
          node.kind === "exporter" ? null : tap("out", "Tap what goes out"),
        )
      : null,
  );
}

/** Shows what was seen last. */
export function show(state) {
  latest = state;
  const { graph } = state;
  const running = graph.nodes.filter((node) => node.state === "running").length;
  const pipelines = graph.nodes.filter((node) => node.kind === "pipeline").length;
  const some = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const off = graph.nodes.length - running;
  const how =
    off === 0
      ? "all run."
      : off === 1
        ? "one does not run as it should."
        : `${off} do not run as they should.`;
  $("graph-lead").textContent =
    `${some(drawn(graph).length - pipelines, "node")} in ${some(pipelines, "pipeline")}; ${how}`;
  draw(state);
  if (!$("legend").firstChild) legend();
  details(state);
  update($("nodes"), table("All nodes, with what is counted of them", HEADS, rows(state)));
}

new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (width === shape || width === 0) return;
  shape = width;
  if (latest) draw(latest);
}).observe($("drawing"));
