// Rates, from the differences of what is counted between looks.

const WINDOW_MS = 10000;

/** Remembers what was counted in the last seconds. */
export class Rates {
  #series = new Map();

  /** Takes what was seen at `now`, in ms. */
  take(graph, now) {
    const seen = new Map();
    for (const node of graph.nodes) {
      for (const name of ["items_in", "items_out", "failed", "refused"]) {
        const value = node.numbers[name];
        if (value === undefined) continue;
        const key = `${node.key}\n${name}`;
        const before = this.#series.get(key) ?? [];
        // What was counted anew says nothing of what was before.
        const goesOn = before.length > 0 && before[before.length - 1][1] <= value;
        const points = (goesOn ? before : []).filter(([t]) => now - t <= WINDOW_MS);
        points.push([now, value]);
        seen.set(key, points);
      }
    }
    this.#series = seen;
  }

  /** Per second; null if it is not known yet. */
  of(key, name) {
    const points = this.#series.get(`${key}\n${name}`);
    if (!points || points.length < 2) return null;
    const [[t0, v0], [t1, v1]] = [points[0], points[points.length - 1]];
    return t1 > t0 ? ((v1 - v0) * 1000) / (t1 - t0) : null;
  }
}

/**
 * What flows along each edge: `{rate, near}`. Processors are counted by their name, over all pipelines that have
 * them, and exporters and connectors over all that send to them; where that does not tell what comes by one edge, it is worked out
 * from what comes before, and `near` is true.
 */
export function flows(graph, rates) {
  const nodes = new Map(graph.nodes.map((node) => [node.key, node]));
  const into = (key) => graph.edges.filter((edge) => edge.to === key);
  const alike = (node) =>
    graph.nodes.filter(
      (other) => other.kind === node.kind && other.id === node.id && other.signal === node.signal,
    ).length;
  const known = new Map();
  const out = (key) => {
    const node = nodes.get(key);
    if (!node) return { rate: null, near: true };
    const own = node.kind === "receiver" || node.kind === "connector";
    if (own || (node.kind === "processor" && alike(node) === 1)) {
      return { rate: rates.of(key, "items_out"), near: false };
    }
    const all = into(key).map(along);
    const sum = all.reduce((a, b) => (a === null || b.rate === null ? null : a + b.rate), 0);
    return {
      rate: all.length ? sum : null,
      near: all.some((flow) => flow.near) || node.kind === "processor",
    };
  };
  const along = (edge) => {
    const name = `${edge.from}\n${edge.to}`;
    if (known.has(name)) return known.get(name);
    // Stands in for a circle, which no graph has.
    known.set(name, { rate: null, near: true });
    const to = nodes.get(edge.to);
    const ends = to && (to.kind === "exporter" || to.kind === "connector");
    const counted = ends || (to && to.kind === "processor" && alike(to) === 1);
    let flow = out(edge.from);
    if (counted && into(edge.to).length === 1 && to.numbers.items_in !== undefined) {
      flow = { rate: rates.of(edge.to, "items_in"), near: false };
    } else if (nodes.get(edge.from)?.kind !== "receiver") {
      // What goes to several exporters is counted for each of them before it gets there.
      const ways = graph.edges.filter((other) => other.from === edge.from).length;
      if (ways > 1) flow = { rate: flow.rate === null ? null : flow.rate / ways, near: true };
    }
    known.set(name, flow);
    return flow;
  };
  return graph.edges.map(along);
}
