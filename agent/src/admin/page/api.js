// Asking the agent. The token is kept for this tab alone, and goes nowhere but to where this page came from.

const KEY = "tailwater-token";
const LOOK_MS = 15000;
const CHANGE_MS = 310000;

/** What the agent said instead of doing it. Status 0: it said nothing. */
export class Refused extends Error {
  constructor(status, text, reasons) {
    super(text);
    this.status = status;
    this.reasons = reasons ?? [];
  }
}

export const token = {
  needed: document.documentElement.dataset.token === "needed",
  known: () => sessionStorage.getItem(KEY) !== null,
  keep: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

function options(method, body, headers, signal) {
  const all = new Headers(headers);
  if (token.known()) all.set("Authorization", `Bearer ${sessionStorage.getItem(KEY)}`);
  return {
    method,
    body,
    signal,
    headers: all,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  };
}

/** The response as it is; what is not a success is thrown. `path` has no slash in front. */
export async function open(path, { method = "GET", body, headers, signal } = {}) {
  let response;
  try {
    response = await fetch(path, options(method, body, headers, signal));
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Refused(0, late ? "The agent does not answer in time." : "No answer from the agent.");
  }
  if (response.ok) return response;
  let said = {};
  try {
    said = await response.json();
  } catch {
    // A proxy may have answered.
  }
  throw new Refused(response.status, said.error ?? `The answer was ${response.status}.`, said.reasons);
}

/** A look: the answer as JSON. */
export async function look(path) {
  return read(path, "json");
}

/** A look: the answer as text. */
export async function text(path) {
  return read(path, "text");
}

async function read(path, form) {
  const response = await open(path, { signal: AbortSignal.timeout(LOOK_MS) });
  try {
    return await response[form]();
  } catch {
    throw new Refused(0, "The answer of the agent ended early.");
  }
}

/** A change, or the plan of one; only if `generation` is in force, if it is given. */
export async function change(method, path, body, generation) {
  const headers = generation === undefined ? {} : { "If-Match": `"${generation}"` };
  if (body !== undefined) headers["Content-Type"] = "application/yaml";
  const response = await open(path, { method, body, headers, signal: AbortSignal.timeout(CHANGE_MS) });
  return response.json();
}
