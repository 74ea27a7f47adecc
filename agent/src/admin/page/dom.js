// Making and finding elements. Text is only ever set as text: nothing that the agent says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** An element: `h("a", {href: "#x", onclick: f}, "text", other)`. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** The same, of a drawing. */
export const s = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Says something to who listens to the page. */
export function say(text) {
  $("said").textContent = text;
}

// A state has a shape and a colour of its own, and is said in words beside it.
const SHAPES = {
  running: ["ok", "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2z", null],
  "in trouble": ["bad", "M8 1.2 15.3 14.5H.7z", "M8 6v4.2M8 12.4v.1"],
  "waiting for the one before it": ["wait", "M8 1 15 8 8 15 1 8z", "M6.6 6v4M9.4 6v4"],
  "not started": ["bad", "M2 2h12v12H2z", "M5.5 5.5l5 5M10.5 5.5l-5 5"],
  unknown: ["none", "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2z", null],
};

/** All states, in the order of the legend. */
export const STATES = Object.keys(SHAPES).filter((state) => state !== "unknown");

/** The sign of a state. `kind` is the class that colours it. */
export function sign(state) {
  const [kind, outline, inner] = SHAPES[state] ?? SHAPES.unknown;
  return s(
    "svg",
    { class: `sign ${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true", "data-state": state },
    s("path", { d: outline, class: "outline" }),
    inner && s("path", { d: inner, class: "inner" }),
  );
}

/** A table that becomes a list of cards where there is little room. `heads`: `[title, class]`. */
export function table(caption, heads, rows) {
  const head = heads.map(([title, cls]) =>
    h("th", { scope: "col", role: "columnheader", class: cls }, title),
  );
  const cell = (content, i) => {
    const attributes = {
      role: i === 0 ? "rowheader" : "cell",
      class: heads[i][1],
      "data-label": heads[i][0],
    };
    if (i === 0) attributes.scope = "row";
    const nothing = content === "" || (Array.isArray(content) && content.length === 0);
    return h(i === 0 ? "th" : "td", attributes, nothing ? null : h("div", {}, content));
  };
  const body = rows.map((cells) => h("tr", { role: "row" }, cells.map(cell)));
  return h(
    "table",
    { role: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    h("tbody", { role: "rowgroup" }, body),
  );
}

/** Replaces what is in `place` by new children, and gives the focus back to what had it, by `data-key`. */
export function replace(place, ...children) {
  const had = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (had === undefined) return;
  for (const element of place.querySelectorAll("[data-key]")) {
    if (element.dataset.key === had) element.focus({ preventScroll: true });
  }
}

/**
 * As `replace`, but what is there already stays the same element, with its focus and what is selected in it. What has a
 * `data-key` is the same if that is; its listeners stay those of the first time.
 */
export function update(place, ...children) {
  const now = document.createElement(place.nodeName);
  now.append(...children.flat(Infinity).filter(Boolean));
  morph(place, now);
}

function morph(old, now) {
  const [before, after] = [[...old.childNodes], [...now.childNodes]];
  after.forEach((child, i) => {
    const own = before[i];
    if (own === undefined) old.append(child);
    else if (own.nodeName !== child.nodeName || own.dataset?.key !== child.dataset?.key)
      own.replaceWith(child);
    else if (child.nodeType === Node.TEXT_NODE) {
      if (own.data !== child.data) own.data = child.data;
    } else {
      attributes(own, child);
      morph(own, child);
    }
  });
  for (const child of before.slice(after.length)) child.remove();
}

function attributes(old, now) {
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) {
    if (old.getAttribute(name) === value) continue;
    // The page's policy lets no attribute be a style, but what it says is.
    if (name === "style") old.style.cssText = now.style.cssText;
    else old.setAttribute(name, value);
  }
}
