// The difference of two texts, line by line.

const CELLS_MAX = 4e6;
const AROUND = 3;

/**
 * `[sign, line]` for each line of either: " " is in both, "-" only in the first, "+" only in the second. Of texts that
 * have too little in common to be compared in reasonable time, all of the first, then all of the second.
 */
export function diff(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end])
    end += 1;
  const same = (line) => [" ", line];
  const middle = between(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return [...a.slice(0, start).map(same), ...middle, ...a.slice(a.length - end).map(same)];
}

function between(a, b) {
  const gone = (line) => ["-", line];
  const come = (line) => ["+", line];
  if (!a.length || !b.length || a.length * b.length > CELLS_MAX) return [...a.map(gone), ...b.map(come)];
  // How much is common of what follows line i of a and line j of b.
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      common[at] = a[i] === b[j] ? common[at + width + 1] + 1 : Math.max(common[at + width], common[at + 1]);
    }
  }
  const all = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      all.push([" ", a[i]]);
      i += 1;
      j += 1;
    } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) {
      all.push(gone(a[i]));
      i += 1;
    } else {
      all.push(come(b[j]));
      j += 1;
    }
  }
  return [...all, ...a.slice(i).map(gone), ...b.slice(j).map(come)];
}

/** What changed, and a few lines around it; `["…", text]` stands for what was left out. */
export function around(lines) {
  const near = lines.map(() => false);
  lines.forEach(([sign], i) => {
    if (sign === " ") return;
    near.fill(true, Math.max(0, i - AROUND), i + AROUND + 1);
  });
  const all = [];
  for (let i = 0; i < lines.length; i += 1) {
    if (near[i]) {
      all.push(lines[i]);
      continue;
    }
    const from = i;
    while (i + 1 < lines.length && !near[i + 1]) i += 1;
    const n = i - from + 1;
    all.push(n === 1 ? lines[i] : ["…", `${n} lines that are the same`]);
  }
  return all;
}
