// What is computed in the page, against what must hold of it for anything. Each throws, or gives how much it tried.

const computed = {
  // Differences lead from one text to the other.
  async differences() {
    const { diff, around } = await import("/page/diff.js");
    let seed = 7;
    const below = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const made = () => Array.from({ length: below(14) }, () => "abcd"[below(4)]).join("\n");
    for (let i = 0; i < 2000; i += 1) {
      const [a, b] = [made(), made()];
      const lines = diff(a, b);
      const of = (not) =>
        lines
          .filter(([sign]) => sign !== not)
          .map(([, text]) => text)
          .join("\n");
      if (of("+") !== a || of("-") !== b) throw new Error(JSON.stringify([a, b, lines]));
      const kept = lines.filter(([sign]) => sign !== " ").length;
      const shown = around(lines).filter(([sign]) => sign === "+" || sign === "-").length;
      if (kept !== shown) throw new Error("left out: " + JSON.stringify(lines));
    }
    return 2000;
  },
  // Nodes do not lie on each other.
  async drawing() {
    const { wide, narrow } = await import("/page/layout.js");
    let seed = 11;
    const below = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    for (let i = 0; i < 300; i += 1) {
      const nodes = [],
        edges = [];
      const add = (kind, key, pipeline) => nodes.push({ kind, key, id: key, signal: "logs", pipeline });
      const [r, p, e] = [1 + below(6), 1 + below(6), 1 + below(6)];
      for (let j = 0; j < r; j += 1) add("receiver", `receiver ${j}`);
      for (let j = 0; j < e; j += 1) add("exporter", `exporter ${j}`);
      for (let j = 0; j < p; j += 1) {
        let from = `pipeline ${j}`;
        add("pipeline", from);
        edges.push({ from: `receiver ${below(r)}`, to: from });
        for (let k = below(4); k > 0; k -= 1) {
          const to = `processor ${k} in ${j}`;
          add("processor", to, String(j));
          edges.push({ from, to });
          from = to;
        }
        for (const k of new Set([below(e), below(e)])) edges.push({ from, to: `exporter ${k}` });
        if (j + 1 < p && below(2) === 0) {
          const connector = `connector ${j}`;
          add("connector", connector);
          edges.push({ from, to: connector });
          const behind = () => j + 1 + below(p - j - 1);
          for (const k of new Set([behind(), behind()])) edges.push({ from: connector, to: `pipeline ${k}` });
        }
      }
      for (const layout of [wide({ nodes, edges }), wide({ nodes, edges }, 900), narrow({ nodes, edges }, 320)]) {
        const boxes = [...layout.boxes.values()];
        if (boxes.length !== nodes.length || layout.lines.length !== edges.length)
          throw new Error("not all is drawn");
        for (const a of boxes) {
          if (a.x < 0 || a.y < 0 || a.x + a.w > layout.width + 1 || a.y + a.h > layout.height + 2)
            throw new Error(`outside: ${JSON.stringify(a)}`);
          for (const b of boxes) {
            if (a !== b && a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h) {
              throw new Error(`on each other: ${JSON.stringify([a, b, edges])}`);
            }
          }
        }
      }
    }
    return 300;
  },
  // Rates are differences over time, and begin anew with what is counted.
  async rates() {
    const { Rates, flows } = await import("/page/rates.js");
    const rates = new Rates();
    const n = (kind, id, numbers, pipeline) => ({
      key: `${kind} ${id}${pipeline ? ` in ${pipeline}` : ""}`,
      kind,
      id,
      signal: "logs",
      pipeline,
      numbers,
    });
    const graph = (v) => ({
      nodes: [
        n("receiver", "r", { items_out: 10 * v }),
        n("pipeline", "a", {}),
        n("pipeline", "b", {}),
        n("processor", "batch", { items_out: 20 * v }, "a"),
        n("processor", "batch", { items_out: 20 * v }, "b"),
        n("exporter", "x", { items_in: 20 * v }),
      ],
      edges: [
        ["receiver r", "pipeline a"],
        ["receiver r", "pipeline b"],
        ["pipeline a", "processor batch in a"],
        ["pipeline b", "processor batch in b"],
        ["processor batch in a", "exporter x"],
        ["processor batch in b", "exporter x"],
      ].map(([from, to]) => ({ from, to })),
    });
    const is = (got, want) => {
      if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(JSON.stringify([got, want]));
    };
    rates.take(graph(1), 0);
    is(rates.of("receiver r", "items_out"), null);
    rates.take(graph(3), 2000);
    is(rates.of("receiver r", "items_out"), 10);
    is(
      flows(graph(3), rates).map((f) => [f.rate, f.near]),
      [
        [10, false],
        [10, false],
        [10, false],
        [10, false],
        [10, true],
        [10, true],
      ],
    );
    rates.take(graph(1), 4000);
    is(rates.of("receiver r", "items_out"), null);
    rates.take(graph(1), 6000);
    is(rates.of("receiver r", "items_out"), 0);
    return 5;
  },
  // Numbers are written for people.
  async numbers() {
    const f = await import("/page/format.js");
    for (const [got, want] of [
      [f.count(0), "0"],
      [f.count(999), "999"],
      [f.count(1234), "1.23k"],
      [f.count(45678), "45.7k"],
      [f.count(2e6), "2M"],
      [f.count(undefined), "–"],
      [f.rate(null), "–"],
      [f.rate(0), "0/s"],
      [f.rate(0.04), "<0.1/s"],
      [f.rate(12.34), "12.3/s"],
      [f.rate(200), "200/s"],
      [f.bytes(0), "0 B"],
      [f.bytes(1023), "1023 B"],
      [f.bytes(1536), "1.5 KiB"],
      [f.bytes(5 * 2 ** 30), "5 GiB"],
      [f.seconds(0), "0 s"],
      [f.seconds(1.25), "1.25 s"],
      [f.seconds(75), "1 min 15 s"],
      [f.seconds(3600), "1 h"],
      [f.seconds(90061), "1 d 1 h"],
    ])
      if (got !== want) throw new Error(`${got} is not ${want}`);
    return 20;
  },
};
