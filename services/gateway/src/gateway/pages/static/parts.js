// What pages are put together from, and how a part is drawn anew without taking the reader's place away.

import { element, moment } from "./shared.js";

export const place = (id) => document.getElementById(id);
export const empty = (...parts) => element("p", { class: "empty" }, ...parts);
export const code = (text) => element("code", {}, text);
export const rows = (items) => element("ul", { class: "rows" }, ...items);
export const line = (properties, ...children) => element("span", { ...properties, class: `line ${properties.class ?? ""}` }, ...children);
export const fact = (name, ...value) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
export const json = (value, id = null) => element("pre", { id, tabindex: "0" }, JSON.stringify(value, null, 2));
export const details = (id, title, ...children) => element("details", { id }, element("summary", { id: `${id}-title` }, title), ...children);
export const button = (id, text, onclick, properties = {}) => element("button", { id, type: "button", onclick, ...properties }, text);

// A part of a drawing. What it shows is told in words beside it, so that nobody has to see it.
export function shape(name, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

// Shares of a whole as a bar: of `counts` those of these names, in this order; what is few can still be seen.
export function mix(counts, names) {
  const total = names.reduce((sum, name) => sum + counts[name], 0);
  let x = 0;
  const bars = names.map((name) => {
    const width = Math.max(1.2, (100 * counts[name]) / total);
    x += width;
    return shape("rect", { class: name, x: x - width, y: 0, width, height: 8 });
  });
  return shape("svg", { class: "mix", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }, bars);
}

export function card(kind, title, note, ...children) {
  const notes = note instanceof Node ? note : element("span", { class: "soft" }, note ?? "");
  return element("section", { class: `card ${kind}`, "aria-label": title }, element("header", {}, element("h2", {}, title), notes), ...children);
}

const drawn = new Map();

// Draws into the element of that id when the data are others than those that were drawn there last. Whoever has the
// focus keeps it, what was opened stays open, and what was scrolled stays where it was: each by its id.
export function draw(id, data, make) {
  const fingerprint = JSON.stringify(data);
  const into = place(id);
  if (drawn.get(id) === fingerprint) return;
  drawn.set(id, fingerprint);
  const focused = into.contains(document.activeElement) ? document.activeElement.id : "";
  const opened = [...into.querySelectorAll("details[open][id]")].map((one) => one.id);
  const scrolled = [...into.querySelectorAll("pre[id], .scroll[id]")].map((one) => [one.id, one.scrollTop, one.scrollLeft]);
  into.replaceChildren(...[make(data)].flat(Infinity).filter(Boolean));
  for (const one of opened) place(one)?.setAttribute("open", "");
  for (const [one, top, left] of scrolled) place(one)?.scrollTo(left, top);
  if (focused) place(focused)?.focus({ preventScroll: true });
}

export function complain(text, kind = "") {
  place("notice").textContent = text;
  place("notice").className = `notice ${kind}`;
  place("notice").hidden = !text;
}

// How far a run is, as it reported, as a bar and in percent.
export function progressBar(progress, name) {
  const percent = Math.floor(100 * (progress.fraction ?? 0));
  return [element("progress", { max: "100", value: progress.fraction === null ? null : String(percent), "aria-label": name }), percent];
}

export function left(progress) {
  if (progress.eta_seconds === null || progress.fraction === 1) return null;
  return moment(new Date(Date.parse(progress.at) + 1000 * progress.eta_seconds).toISOString(), "left");
}

// Calls `once` again and again while somebody looks; it says in how many milliseconds, or null when it is done. Calling
// what is returned does so at once. What takes long is asked for seldom:
// in nine tenths of the time nobody asks.
export function repeat(once) {
  let timer = null;
  let newest = 0;
  const again = async () => {
    const mine = ++newest;
    clearTimeout(timer);
    const began = performance.now();
    const pause = document.hidden ? 1000 : await once();
    if (mine === newest && pause !== null) timer = setTimeout(again, Math.max(pause, Math.min(60_000, 9 * (performance.now() - began))));
  };
  again();
  return again;
}
