// The page: who may see it, which view is shown, and what the agent says again and again.

import { $, h, sign, replace, say } from "./dom.js";
import { look, token } from "./api.js";
import { seconds } from "./format.js";
import { Rates } from "./rates.js";
import { sentence } from "./change.js";
import * as graph from "./graph.js";
import * as files from "./files.js";
import * as generations from "./generations.js";
import * as configuration from "./configuration.js";
import * as tap from "./tap.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 15000;
const VIEWS = { graph, files, generations, configuration, tap };

const rates = new Rates();
let state = null;
let paths = null;
let timer = 0;
let failures = 0;
let live = true;
// Looks under way that are of no use any more have another number.
let round = 0;

const offers = (path) => paths !== null && path in paths;

// ----- views

/** The view that the address names, and what follows it there. */
function route() {
  let parts = [];
  try {
    parts = location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    // No address that this page has made.
  }
  const [name, ...rest] = parts;
  return Object.hasOwn(VIEWS, name ?? "") ? [name, rest] : ["graph", []];
}

// `fresh`: another view than the one before. `focus`: the reader is led there.
function showView(fresh, focus = fresh) {
  const [name, rest] = route();
  for (const view of Object.keys(VIEWS)) {
    const hide = view !== name || state === null;
    if (hide && !$(view).hidden) VIEWS[view].leave?.();
    $(view).hidden = hide;
  }
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = $(`${name}-title`).textContent;
  const trouble = state !== null && !(state.health.ready && state.health.live);
  document.title = `${trouble ? "▲ " : ""}${title} – Tailwater`;
  if (state === null) return;
  if (fresh) VIEWS[name].forget?.();
  if (focus) {
    $(`${name}-title`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  VIEWS[name].show(state, fresh ? rest : undefined);
}

// ----- what is said of the whole

function healthOf(health) {
  if (health.ready && health.live) return ["running", "Ready"];
  return health.live ? ["in trouble", "In trouble"] : ["not started", "Stands still"];
}

let badge = null;

function showFacts() {
  const { health } = state;
  const [shape, word] = healthOf(health);
  if (badge !== word) {
    replace($("health"), sign(shape), word);
    $("health").dataset.word = word;
    badge = word;
  }
  $("generation").textContent = state.graph.generation;
  $("uptime").textContent = seconds(health.uptime_seconds);
  $("reasons").hidden = health.reasons.length === 0;
  const text = health.reasons.join("\n");
  if ($("reasons").dataset.text !== text) {
    $("reasons").dataset.text = text;
    replace(
      $("reasons"),
      h(
        "ul",
        {},
        health.reasons.map((reason) => h("li", {}, reason)),
      ),
    );
  }
}

/** Says what became different, for who does not see it. */
function tell(before, now) {
  const news = [];
  const [, word] = healthOf(now.health);
  if (healthOf(before.health)[1] !== word)
    news.push(`${word}.`, ...now.health.reasons.slice(0, 3).map(sentence));
  if (before.graph.generation !== now.graph.generation)
    news.push(`Generation ${now.graph.generation} is in force.`);
  const old = new Map(before.graph.nodes.map((node) => [node.key, node.state]));
  for (const node of now.graph.nodes) {
    if (old.has(node.key) && old.get(node.key) !== node.state) news.push(`${node.key}: ${node.state}.`);
  }
  if (news.length) say(news.join(" "));
}

// ----- asking

async function lookAround(own) {
  if (paths === null) {
    const [described, components] = await Promise.all([look("v1/openapi.json"), look("v1/components")]);
    paths = described.paths;
    $("version").textContent = components.version;
  }
  const [seen, health] = await Promise.all([look("v1/graph"), look("v1/health")]);
  if (own !== round) return;
  rates.take(seen, performance.now());
  const before = state;
  if (before && health.uptime_seconds < before.health.uptime_seconds) {
    // It is another process, which counts its generations anew and may be another version.
    paths = null;
    for (const view of Object.values(VIEWS)) view.forget?.();
  }
  state = { graph: seen, health, rates, offers, refresh };
  if (before) tell(before, state);
  failures = 0;
  $("lost").hidden = true;
  showFacts();
  if (before) showView(false);
  else enter();
}

/** Looks at once; the next look follows by itself. */
async function refresh() {
  clearTimeout(timer);
  round += 1;
  const own = round;
  try {
    await lookAround(own);
  } catch (error) {
    if (own !== round) return;
    if (error.status === 401) {
      askForToken(token.known() ? "This token is not the right one." : "");
      return;
    }
    failures += 1;
    const text = `${sentence(error.message)} What is shown may be old; asking again.`;
    // It is said once, not at each look.
    if ($("lost").textContent !== text) $("lost").textContent = text;
    $("lost").hidden = false;
  }
  if (own === round && live && !document.hidden)
    timer = setTimeout(refresh, Math.min(PATIENCE_MS, EVERY_MS * 2 ** Math.min(failures, 3)));
}

function setLive(is) {
  live = is;
  $("live").dataset.live = String(is);
  $("live").textContent = is ? "Pause" : "Go on";
  $("paused").hidden = is;
  if (is) refresh();
  else clearTimeout(timer);
}

// ----- who is there

function askForToken(why) {
  clearTimeout(timer);
  round += 1;
  token.forget();
  state = null;
  badge = null;
  for (const id of ["facts", "tools", "nav", "reasons", "lost"]) $(id).hidden = true;
  showView(false);
  $("enter").hidden = false;
  $("enter-error").textContent = why;
  $("token").value = "";
  $("token").focus();
}

function enter() {
  const asked = !$("enter").hidden;
  $("enter").hidden = true;
  for (const id of ["facts", "tools", "nav"]) $(id).hidden = false;
  $("leave").hidden = !token.known();
  // Who has just come begins where every page begins.
  showView(true, asked);
}

$("enter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("token").value.trim();
  // What no header can carry is no token.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    $("enter-error").textContent = "A token is one line of printable ASCII without spaces.";
    return;
  }
  token.keep(text);
  refresh();
});
$("leave").addEventListener("click", () => askForToken(""));
$("live").addEventListener("click", () => setLive(!live));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", () => showView(true));
document.addEventListener("visibilitychange", () => {
  if (state === null || !live) return;
  if (document.hidden) clearTimeout(timer);
  else refresh();
});

if (token.needed && !token.known()) askForToken("");
else refresh();
