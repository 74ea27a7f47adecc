// Another configuration: written, planned, put into force.

import { $, h, replace, say } from "./dom.js";
import { text, change } from "./api.js";
import { changes, difference, against } from "./change.js";

const FILE_BYTES_MAX = 16 * 1024 * 1024;

// The plan that may be carried out: of this text, over this generation.
let planned = null;
let base = null;
let running = 0;
let refresh = () => {};

const area = () => $("text");

function withdraw() {
  if (!planned) return;
  planned = null;
  $("apply").disabled = true;
  replace($("plan"), h("p", { class: "muted" }, "The text has changed; its plan is not known yet."));
}

function go(line, column) {
  const lines = area().value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, l) => sum + l.length + 1, 0) + column - 1;
  area().focus();
  area().setSelectionRange(start, start + Math.max(1, (lines[line - 1]?.length ?? 1) - column + 1));
  area().scrollTop = Math.max(0, (line - 5) * (area().scrollHeight / lines.length));
}

async function fill() {
  try {
    base = await text("v1/config");
    area().value = base;
    withdraw();
    const hidden = base.includes("[REDACTED]");
    replace(
      $("plan"),
      hidden
        ? h(
            "p",
            { class: "note" },
            "Secrets are shown as [REDACTED]. Write ${env:NAME} or ${file:PATH} in their place; as it is, it is not taken.",
          )
        : null,
    );
    say("The configuration in force is in the field.");
  } catch (error) {
    replace($("plan"), against(error));
  }
}

async function take(file) {
  if (!file) return;
  if (file.size > FILE_BYTES_MAX) {
    replace($("plan"), against(new Error("a configuration has at most 16 MiB")));
    return;
  }
  area().value = await file.text();
  withdraw();
  say(`${file.name} is in the field.`);
}

function busy(is) {
  for (const id of ["plan-it", "load", "text"]) $(id).disabled = is;
  $("configuration").setAttribute("aria-busy", String(is));
}

async function plan() {
  const yaml = area().value;
  const place = $("plan");
  planned = null;
  $("apply").disabled = true;
  busy(true);
  try {
    const answer = await change("POST", "v1/plan", yaml);
    running = answer.generation;
    const same = answer.outcome === "unchanged";
    replace(
      place,
      h("h2", { id: "plan-title", tabindex: "-1" }, "Plan"),
      h(
        "p",
        {},
        same
          ? `This is what is in force: generation ${running}.`
          : `In place of generation ${running} this would change, while everything goes on:`,
      ),
      same ? null : changes(answer.changes),
      !same && base !== null
        ? [
            h("h3", {}, "The text, against the one that it began from"),
            difference(base, yaml, "Difference of the text to the one that it began from"),
          ]
        : null,
    );
    if (!same) planned = { yaml, generation: running };
  } catch (error) {
    replace(place, h("h2", { id: "plan-title", tabindex: "-1" }, "Plan"), against(error, go));
  } finally {
    busy(false);
    $("apply").disabled = !planned;
    $("plan-title").focus();
  }
}

async function apply() {
  if (!planned) return;
  const { yaml, generation } = planned;
  planned = null;
  $("apply").disabled = true;
  busy(true);
  try {
    const done = await change("PUT", "v1/config", yaml, generation);
    base = null;
    replace(
      $("plan"),
      h("h2", { id: "plan-title", tabindex: "-1" }, "Done"),
      h("p", { class: "note good" }, `Generation ${done.generation} is in force.`),
      changes(done.changes),
      h("p", {}, h("a", { href: "#generations" }, "How it differs from the one before, and the way back")),
    );
    say(`Generation ${done.generation} is in force.`);
    await refresh();
  } catch (error) {
    const hint =
      error.status === 412
        ? h(
            "p",
            {},
            "Somebody else has changed it meanwhile. Show the plan again to see what it would change now.",
          )
        : null;
    replace($("plan"), h("h2", { id: "plan-title", tabindex: "-1" }, "Plan"), against(error, go), hint);
  } finally {
    busy(false);
    $("plan-title").focus();
  }
}

/** Builds the form once. */
export function show(state) {
  refresh = state.refresh;
  if ($("text")) return;
  replace(
    $("configuration-body"),
    h(
      "div",
      { class: "two" },
      h(
        "div",
        { class: "card" },
        h(
          "div",
          { class: "row start" },
          h("button", { type: "button", id: "load", onclick: fill }, "Begin with the one in force"),
          h(
            "label",
            { class: "button" },
            "Open a file",
            h("input", {
              type: "file",
              class: "hidden",
              id: "file",
              accept: ".yaml,.yml,.json,text/*",
              onchange: (event) => take(event.target.files[0]),
            }),
          ),
        ),
        h("label", { for: "text", class: "block" }, "The whole configuration, as YAML"),
        h("textarea", {
          id: "text",
          rows: "24",
          spellcheck: "false",
          autocomplete: "off",
          autocapitalize: "off",
          wrap: "off",
          oninput: withdraw,
        }),
        h(
          "div",
          { class: "row end" },
          h("button", { type: "button", id: "plan-it", onclick: plan }, "Show the plan"),
          h(
            "button",
            { type: "button", class: "main", id: "apply", disabled: true, onclick: apply },
            "Apply",
          ),
        ),
      ),
      h(
        "section",
        { class: "card plan", id: "plan", "aria-label": "Plan" },
        h("p", { class: "muted" }, "Nothing is touched before a plan was shown and applied."),
      ),
    ),
  );
}
