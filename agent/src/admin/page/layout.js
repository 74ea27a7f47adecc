// Where nodes and edges are drawn. Without any element: from a graph to numbers.

const GAP = 84;
/** What the number on an edge has room in. */
const GAP_MIN = 58;
const ROW = 92;
const SIZES = { pipeline: [124, 34], processor: [148, 70], connector: [148, 70] };
const SIZE = [172, 70];

/** Width and height of a node. */
const sizeOf = (node) => SIZES[node.kind] ?? SIZE;

/** The nodes that are drawn: extensions are not connected. */
export const drawn = (graph) => graph.nodes.filter((node) => node.kind !== "extension");

/** How many nodes are before each one, at most. */
function layers(nodes, edges) {
  const layer = new Map(nodes.map((node) => [node.key, 0]));
  // As many rounds as the longest way can have.
  for (let round = 0; round < nodes.length; round += 1) {
    let moved = false;
    for (const { from, to } of edges) {
      if (layer.has(from) && layer.has(to) && layer.get(to) <= layer.get(from)) {
        layer.set(to, layer.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const last = Math.max(0, ...layer.values());
  for (const node of nodes) {
    if (node.kind === "exporter" && !edges.some((edge) => edge.from === node.key)) layer.set(node.key, last);
  }
  return layer;
}

/** How many nodes are before each one that is drawn, at most. */
export const depth = (graph) => layers(drawn(graph), graph.edges);

/** Puts `items` (`{key, want}`) in a column, in the order of where they want to be, without touching each other. */
function column(items, y) {
  const sorted = items.map((item, i) => ({ ...item, i })).sort((a, b) => a.want - b.want || a.i - b.i);
  let next = -Infinity;
  for (const item of sorted) {
    item.at = Math.max(item.want, next);
    next = item.at + ROW;
  }
  const push = sorted.reduce((sum, item) => sum + item.at - item.want, 0) / (sorted.length || 1);
  for (const item of sorted) y.set(item.key, item.at - push);
}

/** The middle of each node, from the top: a row per pipeline, the others beside what they are connected to. */
function rows(nodes, edges) {
  const y = new Map();
  const lanes = nodes.filter((node) => node.kind === "pipeline");
  const laneOf = (node) => (node.pipeline === undefined ? node.key : `pipeline ${node.pipeline}`);
  const inLane = (node) => node.kind === "pipeline" || node.kind === "processor";
  const ends = ["receiver", "exporter"].map((kind) => nodes.filter((node) => node.kind === kind));
  const others = nodes.filter((node) => !inLane(node) && !ends.flat().includes(node));
  const beside = (key) =>
    edges
      .flatMap((e) => (e.from === key ? [e.to] : e.to === key ? [e.from] : []))
      .map((other) => y.get(other))
      .filter((at) => at !== undefined);
  const mean = (all, otherwise) => (all.length ? all.reduce((a, b) => a + b, 0) / all.length : otherwise);
  lanes.forEach((node, i) => y.set(node.key, i * ROW));
  for (let round = 0; round < 3; round += 1) {
    for (const node of nodes.filter((n) => n.kind === "processor")) y.set(node.key, y.get(laneOf(node)) ?? 0);
    for (const kind of [...ends, others]) {
      column(
        kind.map((node, i) => ({ key: node.key, want: mean(beside(node.key), i * ROW) })),
        y,
      );
    }
    if (round < 2) {
      const connected = (lane) =>
        nodes.filter((n) => inLane(n) && laneOf(n) === lane).flatMap((n) => beside(n.key));
      column(
        lanes.map((node) => ({ key: node.key, want: mean(connected(node.key), y.get(node.key)) })),
        y,
      );
    }
  }
  return y;
}

/** For who has `room`: columns from left to right, nearer to each other where that makes them fit. */
export function wide(graph, room = Infinity) {
  const nodes = drawn(graph);
  const layer = layers(nodes, graph.edges);
  const y = rows(nodes, graph.edges);
  // A connector stands between rows, where others of its column may be.
  for (const at of new Set(nodes.filter((n) => n.kind === "connector").map((n) => layer.get(n.key)))) {
    const beside = nodes.filter((n) => layer.get(n.key) === at);
    column(
      beside.map(({ key }) => ({ key, want: y.get(key) })),
      y,
    );
  }
  const widths = [];
  for (const node of nodes) {
    const at = layer.get(node.key);
    widths[at] = Math.max(widths[at] ?? 0, sizeOf(node)[0]);
  }
  const taken = [...widths].reduce((sum, w) => sum + (w ?? 0), 2);
  const gap = Math.max(GAP_MIN, Math.min(GAP, Math.floor((room - taken) / Math.max(1, widths.length - 1))));
  const starts = [];
  let x = 1;
  for (let i = 0; i < widths.length; i += 1) {
    starts[i] = x;
    x += (widths[i] ?? 0) + gap;
  }
  const top = Math.min(0, ...y.values()) - SIZE[1] / 2 - 1;
  const boxes = new Map(
    nodes.map((node) => {
      const [w, height] = sizeOf(node);
      return [
        node.key,
        { node, x: starts[layer.get(node.key)], y: y.get(node.key) - top - height / 2, w, h: height },
      ];
    }),
  );
  const end = Math.max(0, ...[...boxes.values()].map((box) => box.y + box.h)) + 1;
  return { boxes, lines: curves(graph.edges, boxes, gap), width: Math.max(0, x - gap) + 1, height: end };
}

/** Where edges meet a side of a box: beside each other, in the order of what they lead to. */
function ports(edges, boxes, side, other) {
  const port = new Map();
  for (const box of boxes.values()) {
    const own = edges
      .filter((edge) => edge[side] === box.node.key)
      .sort((a, b) => boxes.get(a[other]).y - boxes.get(b[other]).y);
    const step = Math.min(12, (box.h - 14) / own.length);
    own.forEach((edge, i) => port.set(edge, box.y + box.h / 2 + (i - (own.length - 1) / 2) * step));
  }
  return port;
}

function curves(all, boxes, gap) {
  const edges = all.filter((edge) => boxes.has(edge.from) && boxes.has(edge.to));
  const [outs, ins] = [ports(edges, boxes, "from", "to"), ports(edges, boxes, "to", "from")];
  const taken = [];
  return edges.map((edge) => {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    const [x1, y1, x2, y2] = [from.x + from.w, outs.get(edge), to.x, ins.get(edge)];
    // Along the row as far as it is free, then to the other one.
    const bend = Math.max(x1, x2 - gap);
    const middle = (bend + x2) / 2;
    const at = (t) => {
      const u = 1 - t;
      const bx = u ** 3 * bend + 3 * u * u * t * middle + 3 * u * t * t * middle + t ** 3 * x2;
      const by = u ** 3 * y1 + 3 * u * u * t * y1 + 3 * u * t * t * y2 + t ** 3 * y2;
      return [bx, by];
    };
    const free = ([lx, ly]) => !taken.some(([ox, oy]) => Math.abs(lx - ox) < 54 && Math.abs(ly - oy) < 17);
    const places = [0.5, 0.35, 0.65, 0.2, 0.8].map(at);
    const label = places.find(free) ?? places[0];
    taken.push(label);
    return { edge, d: `M${x1} ${y1}H${bend}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, label };
  });
}

/** For who has little room: one below the other, edges that skip some at the left. */
export function narrow(graph, width) {
  const nodes = drawn(graph);
  const layer = layers(nodes, graph.edges);
  // Those that others lead to come later.
  const lanes = nodes
    .filter((node) => node.kind === "pipeline")
    .map((node) => node.key)
    .sort((a, b) => layer.get(a) - layer.get(b));
  const laneOf = new Map();
  for (const node of nodes) {
    const touched = graph.edges
      .filter((e) => e.from === node.key || e.to === node.key)
      .flatMap((e) => [e.from, e.to]);
    const own = node.pipeline === undefined ? touched : [`pipeline ${node.pipeline}`];
    laneOf.set(
      node.key,
      own.map((key) => lanes.indexOf(key)).filter((i) => i >= 0),
    );
  }
  const byKey = new Map(nodes.map((node) => [node.key, node]));
  for (const node of nodes.filter((n) => n.kind === "exporter" || n.kind === "connector")) {
    // Of the pipelines that end here.
    const before = graph.edges.filter((e) => e.to === node.key).map((e) => byKey.get(e.from));
    laneOf.set(
      node.key,
      before
        .filter(Boolean)
        .map((n) => lanes.indexOf(n.kind === "pipeline" ? n.key : `pipeline ${n.pipeline}`)),
    );
  }
  // A receiver goes before the first of its pipelines, an exporter or a connector behind the last.
  const place = (node) => {
    const own = laneOf.get(node.key);
    if (!own.length) return lanes.length;
    return node.kind === "receiver" ? Math.min(...own) : Math.max(...own);
  };
  const order = [...nodes].sort((a, b) => place(a) - place(b) || layer.get(a.key) - layer.get(b.key));
  const index = new Map(order.map((node, i) => [node.key, i]));
  const edges = graph.edges.filter((edge) => index.has(edge.from) && index.has(edge.to));
  const skips = edges
    .filter((e) => index.get(e.to) !== index.get(e.from) + 1)
    .sort((a, b) => index.get(a.to) - index.get(a.from) - (index.get(b.to) - index.get(b.from)));
  const tracks = [];
  const track = new Map();
  for (const edge of skips) {
    const [a, b] = [index.get(edge.from), index.get(edge.to)].sort((p, q) => p - q);
    let i = tracks.findIndex((spans) => spans.every(([c, d]) => b <= c || a >= d));
    if (i < 0) i = tracks.push([]) - 1;
    tracks[i].push([a, b]);
    track.set(edge, i);
  }
  const left = tracks.length ? 12 + Math.min(tracks.length, 6) * 9 : 1;
  let y = 1;
  const boxes = new Map(
    order.map((node) => {
      const height = node.kind === "pipeline" ? 34 : 66;
      const box = { node, x: left, y, w: Math.max(120, width - left - 2), h: height };
      y += height + 26;
      return [node.key, box];
    }),
  );
  const lines = edges.map((edge) => {
    const [from, to] = [boxes.get(edge.from), boxes.get(edge.to)];
    if (!track.has(edge)) {
      const x = left + 26;
      return { edge, d: `M${x} ${from.y + from.h}V${to.y}`, label: [x + 40, (from.y + from.h + to.y) / 2] };
    }
    const x = left - 10 - Math.min(track.get(edge), 5) * 9;
    const [y1, y2] = [from.y + from.h / 2 + 6, to.y + to.h / 2 - 6];
    const r = y2 > y1 ? 6 : -6;
    return {
      edge,
      d: `M${left} ${y1}H${x + 6}Q${x} ${y1} ${x} ${y1 + r}V${y2 - r}Q${x} ${y2} ${x + 6} ${y2}H${left}`,
      label: null,
    };
  });
  return { boxes, lines, width, height: Math.max(1, y - 25) };
}
