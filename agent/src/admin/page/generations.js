// The configurations that were in force: what changed, how they differ, and the way back.

import { $, h, replace, say } from "./dom.js";
import { when } from "./format.js";
import { look, text, change } from "./api.js";
import { changes, difference, against, confirm } from "./change.js";

let shown = null;
// The list as it is drawn: what is there already is not drawn anew under the hand of its reader.
let drawn = "";
let refresh = () => {};

/** The configuration of a generation, as text without its secrets. */
export const configOf = (number) => text(`v1/generations/${number}`);

async function compare() {
  const [from, to] = [$("from").value, $("to").value];
  const place = $("compared");
  try {
    const [before, after] = await Promise.all([configOf(from), configOf(to)]);
    // The choice may be another one by now.
    if ($("from").value !== from || $("to").value !== to) return;
    replace(place, difference(before, after, `Difference from generation ${from} to ${to}`));
    say(`Difference from generation ${from} to ${to} is shown.`);
  } catch (error) {
    replace(place, against(error));
  }
}

function choose(from, to) {
  $("from").value = from;
  $("to").value = to;
  compare();
  $("compare-title").focus();
  $("compare-title").scrollIntoView({ block: "nearest" });
}

async function back(number, running) {
  const place = $("generations-said");
  try {
    const plan = await change("POST", `v1/generations/${number}/apply?dry_run=true`, undefined, running);
    if (plan.outcome === "unchanged") {
      replace(
        place,
        h(
          "p",
          { class: "note" },
          `Generation ${number} is the same as what is in force; there is nothing to go back to.`,
        ),
      );
      return;
    }
    const [now, then] = await Promise.all([configOf(running), configOf(number)]);
    const wanted = await confirm(
      `Go back to generation ${number}?`,
      `Go back to ${number}`,
      h("p", {}, "This would change, while everything goes on:"),
      changes(plan.changes),
      difference(now, then, `Difference from what is in force to generation ${number}`),
    );
    if (!wanted) return;
    const done = await change("POST", `v1/generations/${number}/apply`, undefined, running);
    replace(
      place,
      h(
        "p",
        { class: "note good", role: "status" },
        `Generation ${done.generation} is in force; its configuration is that of ${number}.`,
      ),
    );
    say(`Generation ${done.generation} is in force.`);
    await refresh();
    // What was pressed may be there no more.
    $("generations-title").focus();
  } catch (error) {
    replace(place, against(error));
  }
}

function entry(record, before, running) {
  const current = record.number === running;
  return h(
    "li",
    { class: current ? "current" : "" },
    h(
      "div",
      { class: "row" },
      h("h2", {}, `Generation ${record.number}`, current ? h("span", { class: "tag" }, "in force") : null),
      h(
        "span",
        { class: "row" },
        before
          ? h(
              "button",
              {
                type: "button",
                "data-key": `diff ${record.number}`,
                onclick: () => choose(before.number, record.number),
              },
              "Difference",
              h("span", { class: "hidden" }, ` between generation ${before.number} and ${record.number}`),
            )
          : null,
        current
          ? null
          : h(
              "button",
              {
                type: "button",
                "data-key": `back ${record.number}`,
                onclick: () => back(record.number, running),
              },
              `Go back to ${record.number}`,
            ),
      ),
    ),
    h("p", { class: "muted" }, `${when(record.when)}, by ${record.by}`),
    record.by === "start" && !record.changes.length
      ? h("p", { class: "muted" }, "The agent started with it.")
      : changes(record.changes),
  );
}

/** Shows the list anew if there is something new in it. */
export async function show(state) {
  refresh = state.refresh;
  if (shown === state.graph.generation) return;
  const place = $("generations-body");
  let list;
  try {
    list = await look("v1/generations");
  } catch (error) {
    drawn = "";
    replace(place, against(error));
    return;
  }
  shown = list.generation;
  const whole = JSON.stringify(list);
  if (whole === drawn) return;
  drawn = whole;
  const all = list.generations;
  const numbers = all.map((record) => record.number);
  const select = (id, label, value) =>
    h(
      "label",
      {},
      label,
      " ",
      h(
        "select",
        { id, onchange: compare },
        numbers.map((n) => h("option", { value: n, selected: n === value }, n)),
      ),
    );
  const said = $("generations-said")?.firstChild;
  replace(
    place,
    h("div", { id: "generations-said" }, said ?? []),
    h(
      "div",
      { class: "two" },
      h(
        "ol",
        { class: "card generations", reversed: true },
        all.map((record, i) => entry(record, all[i - 1], list.generation)).reverse(),
      ),
      h(
        "section",
        { class: "card compare", "aria-labelledby": "compare-title" },
        h("h2", { id: "compare-title", tabindex: "-1" }, "Difference"),
        h(
          "div",
          { class: "row start" },
          select("from", "from generation", numbers[Math.max(0, numbers.length - 2)]),
          select("to", "to generation", numbers[numbers.length - 1]),
        ),
        h(
          "div",
          { id: "compared" },
          h("p", { class: "muted" }, all.length > 1 ? "Choose two generations." : "There is only one yet."),
        ),
      ),
    ),
  );
  if (all.length > 1) compare();
}

/** The list is asked for again when it is shown the next time. */
export function forget() {
  shown = null;
}
