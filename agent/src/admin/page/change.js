// What is shown of changes: lines of a plan, differences of texts, reasons against it, and the question before it is done.

import { $, h, replace } from "./dom.js";
import { diff, around } from "./diff.js";

const SIGNS = { add: "+", remove: "−", replace: "⇆", update: "~", rewire: "↝" };

/** The lines of a plan, each with a sign of its own. */
export function changes(lines) {
  if (!lines.length) return h("p", { class: "muted" }, "Nothing changes.");
  const line = (text) => {
    const verb = text.split(" ")[0];
    return h(
      "li",
      { class: verb in SIGNS ? verb : "" },
      h("span", { class: "verb", "aria-hidden": "true" }, SIGNS[verb] ?? "•"),
      h("span", {}, text),
    );
  };
  return h("ul", { class: "changes" }, lines.map(line));
}

const WORDS = { "+": "added: ", "-": "removed: ", " ": "", "…": "" };
const CLASSES = { "+": "plus", "-": "minus", " ": "same", "…": "skip" };

/** The difference of two texts. */
export function difference(before, after, label) {
  const lines = diff(before, after);
  if (lines.every(([sign]) => sign === " ")) return h("p", { class: "muted" }, "The texts are the same.");
  const row = ([sign, text]) =>
    h(
      sign === "+" ? "ins" : sign === "-" ? "del" : "span",
      { class: CLASSES[sign] },
      h("span", { class: "hidden" }, WORDS[sign]),
      h("span", { class: "sign-text", "aria-hidden": "true" }, sign === "-" ? "−" : sign),
      `${text}\n`,
    );
  return h(
    "pre",
    { class: "diff", tabindex: "0", role: "region", "aria-label": label },
    around(lines).map(row),
  );
}

/** What the agent has against it. `go` is called with line and column of a place in the text, if it can be gone to. */
export function against(error, go) {
  const reason = (text) => {
    const place = go && /^yaml::(\d+):(\d+)/.exec(text);
    const link =
      place &&
      h(
        "button",
        { type: "button", class: "link", onclick: () => go(Number(place[1]), Number(place[2])) },
        `line ${place[1]}`,
      );
    return h("li", {}, link, link ? text.slice(place[0].length) : text);
  };
  return h(
    "div",
    { class: "note bad", role: "alert" },
    h("p", {}, h("b", {}, sentence(error.message))),
    error.reasons?.length ? h("ul", {}, error.reasons.map(reason)) : null,
  );
}

/** With a capital and a full stop. */
export function sentence(text) {
  const full = /[.!?:]$/.test(text) ? text : `${text}.`;
  return full[0].toUpperCase() + full.slice(1);
}

/** Asks before something is done. True if it is wanted. */
export function confirm(title, yes, ...content) {
  const dialog = $("dialog");
  const opener = document.activeElement;
  return new Promise((resolve) => {
    let wanted = false;
    replace(
      dialog,
      h("h2", { id: "dialog-title", tabindex: "-1", autofocus: true }, title),
      h("div", { class: "inside" }, content),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h(
          "button",
          {
            type: "button",
            class: "main",
            onclick: () => {
              wanted = true;
              dialog.close();
            },
          },
          yes,
        ),
      ),
    );
    dialog.addEventListener(
      "close",
      () => {
        opener?.focus();
        resolve(wanted);
      },
      { once: true },
    );
    dialog.showModal();
  });
}
