// What is tailed, and how far.

import { $, h, s, replace, table } from "./dom.js";
import { bytes, seconds, count } from "./format.js";
import { look } from "./api.js";
import { against } from "./change.js";

const PAGE = 100;
const EVERY_MS = 5000;

// Cursors of the pages before this one.
let pages = [null];
let last = 0;
let asking = false;
let latest = null;

function bar(file) {
  const of = (n) => (file.size > 0 ? Math.min(100, (100 * n) / file.size) : 100);
  const [read, done] = [of(file.read), of(file.acknowledged)];
  return s(
    "svg",
    { class: "meter", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "all", width: 100, height: 8 }),
    s("rect", { class: "read", width: read, height: 8 }),
    s("rect", { class: "done", width: done, height: 8 }),
  );
}

function reach(file) {
  const [done, read, size] = [file.acknowledged, file.read, file.size].map(bytes);
  // The size is that of what is on the disk, the others are those of the content.
  const of = file.compressed ? "" : ` of ${size}`;
  const words =
    done === read
      ? `all that was read: ${read}${file.compressed || read === size ? "" : of}`
      : `${done}; read ${read}${of}`;
  return [file.compressed ? null : bar(file), h("span", { class: "small" }, words)];
}

const HEADS = [
  ["Path", "name"],
  ["Receiver"],
  ["State"],
  ["Delivered"],
  ["Lag", "n"],
  ["Held, deleted", "n"],
];

function row(file) {
  const place =
    file.place && file.place !== file.path ? h("div", { class: "muted small" }, file.place) : null;
  const form = [
    file.compressed ? "compressed" : null,
    file.generation > 0 ? `begun anew ${file.generation === 1 ? "once" : `${file.generation} times`}` : null,
  ].filter(Boolean);
  const id = `device ${file.device}, inode ${file.inode}`;
  return [
    h(
      "span",
      { title: id },
      h("code", {}, file.path),
      place,
      form.length ? h("div", { class: "muted small" }, form.join(", ")) : null,
    ),
    file.exporter
      ? [file.receiver, h("div", { class: "muted small" }, `for ${file.exporter}`)]
      : file.receiver,
    file.state,
    h("div", { class: "reach" }, reach(file)),
    file.lag_bytes > 0
      ? h(
          "span",
          {},
          bytes(file.lag_bytes),
          file.lag_seconds === undefined || file.lag_seconds === null
            ? null
            : `, ${seconds(file.lag_seconds)}`,
        )
      : "none",
    file.held_deleted_bytes > 0 ? bytes(file.held_deleted_bytes) : "",
  ];
}

function query() {
  const parts = new URLSearchParams({ limit: String(PAGE), order: $("files-order").value });
  const [receiver, path, after] = [
    $("files-receiver").value,
    $("files-path").value.trim(),
    pages[pages.length - 1],
  ];
  if (receiver) parts.set("receiver", receiver);
  if (path) parts.set("path", path);
  if (after) parts.set("after", after);
  return `v1/files?${parts}`;
}

async function load() {
  if (asking) return;
  asking = true;
  last = performance.now();
  const asked = query();
  try {
    const answer = await look(asked);
    if (asked === query()) list(answer);
  } catch (error) {
    replace($("files-list"), against(error));
  } finally {
    asking = false;
  }
  if (asked !== query()) await load();
}

function turn(to) {
  pages = to;
  load();
}

function list({ files, next, unanswered }) {
  const first = (pages.length - 1) * PAGE;
  const range = files.length ? `${count(first + 1)} to ${count(first + files.length)}` : "";
  replace(
    $("files-list"),
    unanswered?.length
      ? h(
          "p",
          { class: "note" },
          `No answer from ${unanswered.join(", ")}: not begun yet, or looking at many files.`,
        )
      : null,
    files.length
      ? h("div", { class: "card" }, table("Files that are tailed", HEADS, files.map(row)))
      : h("p", { class: "card muted" }, "No file is tailed that is as asked for."),
    h(
      "div",
      { class: "row start" },
      pages.length > 1
        ? h(
            "button",
            { type: "button", "data-key": "before", onclick: () => turn(pages.slice(0, -1)) },
            "Those before",
          )
        : null,
      h("span", { class: "muted" }, range),
      next
        ? h(
            "button",
            { type: "button", "data-key": "next", onclick: () => turn([...pages, next]) },
            "The next ones",
          )
        : null,
    ),
  );
}

function form(receivers) {
  const changed = () => turn([null]);
  const select = h(
    "select",
    { id: "files-receiver", onchange: changed },
    h("option", { value: "" }, "all"),
    receivers.map((id) => h("option", { value: id }, id)),
  );
  replace(
    $("files-body"),
    h(
      "form",
      {
        class: "row start",
        onsubmit: (event) => {
          event.preventDefault();
          changed();
        },
      },
      h("label", {}, "Receiver ", select),
      h(
        "label",
        {},
        "Path begins with, or matches ",
        h("input", {
          id: "files-path",
          type: "search",
          spellcheck: "false",
          placeholder: "/var/log/**/*.log",
          onchange: changed,
        }),
      ),
      h(
        "label",
        {},
        "Order ",
        h(
          "select",
          { id: "files-order", onchange: changed },
          h("option", { value: "lag" }, "furthest behind first"),
          h("option", { value: "found" }, "as found"),
        ),
      ),
      h("button", { type: "submit" }, "Show"),
    ),
    h("div", { id: "files-list" }),
  );
}

/** Shows them, and asks again now and then. */
export function show(state) {
  if (!state.offers("/v1/files")) {
    replace($("files-body"), h("p", { class: "note" }, "This agent does not list its files."));
    return;
  }
  const receivers = [
    ...new Set(state.graph.nodes.filter((node) => node.kind === "receiver").map((node) => node.id)),
  ];
  const names = receivers.join("\n");
  if (latest !== names) {
    latest = names;
    pages = [null];
    form(receivers);
    last = 0;
  }
  if (last === 0 || performance.now() - last > EVERY_MS) load();
}

/** They are asked for when they are shown the next time. */
export function forget() {
  last = 0;
}
