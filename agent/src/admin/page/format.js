// Numbers for people.

const STEPS = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

function three(value) {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(2).replace(/\.?0+$/, "");
}

/** 1234 -> "1.23k". */
export function count(value) {
  if (!Number.isFinite(value)) return "–";
  for (const [step, letter] of STEPS) {
    if (Math.abs(value) >= step) return three(value / step) + letter;
  }
  return Number.isInteger(value) ? String(value) : three(value);
}

/** Per second; "–" if it is not known. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return `${value > 0 && value < 0.1 ? "<0.1" : count(Math.round(value * 10) / 10)}/s`;
}

/** 1536 -> "1.5 KiB". */
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < 5) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : three(value)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

/** 75 -> "1 min 15 s". */
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 10) return `${three(Math.max(0, value))} s`;
  const whole = Math.round(value);
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const from = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(from, from + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(" ");
}

/** A point in time of the agent, in the reader's time zone. */
export function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime())
    ? text
    : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** How records of a signal are called. */
export const ITEMS = { logs: "records", metrics: "data points", traces: "spans" };

// What is counted of a node: what it is called here, how it is written.
export const NUMBERS = {
  items_in: ["in, all in all", count],
  items_out: ["out, all in all", count],
  failed: ["failed", count],
  refused: ["refused", count],
  in_flight: ["under way", count],
  files: ["files", count],
  lag_bytes: ["lag", bytes],
  lag_seconds: ["lag in time", seconds],
  queue_size: ["in the queue", count],
  queue_capacity: ["room in the queue", count],
  stored_requests: ["requests on disk", count],
  in_flight_requests: ["requests under way", count],
  stalled_seconds: ["without progress", seconds],
};
