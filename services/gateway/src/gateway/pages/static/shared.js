// What all pages share: elements made of text only, states and times.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

export const ENDED = new Set(["completed", "failed", "cancelled", "partial"]);
export const STATES = ["pending", "queued", "running", "retrying", "paused", "completed", "failed", "cancelled", "partial"];
const KNOWN = new Set([...STATES, "retried", "snoozed", "lost", "fired", "handed_back", "waiting", "expired"]);

export function state(name) {
  return element("span", { class: `state ${KNOWN.has(name) ? name : ""}` }, name.replace("_", " "));
}

export function runLink(id, text) {
  return element("a", { href: `/runs/${encodeURIComponent(id)}`, class: "strong" }, text);
}

export const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// The gateway's clock, by the Date of its answers: the reader's clock may be wrong.
let skew = 0;
export const now = () => Date.now() + skew;

export function correct(date) {
  if (date && Math.abs(date - Date.now()) > 5000) skew = date - Date.now();
}

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const whole = (seconds) => (seconds < 60 ? `${Math.max(0, seconds)} s` : span(seconds));

const PHRASES = {
  ago: (s) => (s < 2 ? "now" : `${whole(Math.floor(s))} ago`),
  in: (s) => (-s <= 0.5 ? "due" : `in ${whole(Math.ceil(-s))}`),
  for: (s) => whole(Math.floor(s)),
  left: (s) => (-s <= 1 ? "nearly done" : `about ${whole(Math.ceil(-s))} left`),
};

export function moment(iso, phrase = "ago", stale = null) {
  if (!iso) return element("span", { class: "soft" }, "—");
  const made = element("time", { datetime: iso, title: new Date(iso).toLocaleString(), "data-phrase": phrase, "data-stale": stale, class: "number" });
  tick(made);
  return made;
}

function tick(time) {
  const text = PHRASES[time.dataset.phrase]((now() - Date.parse(time.dateTime)) / 1000);
  if (time.textContent !== text) time.textContent = text;
  if (time.dataset.stale) time.classList.toggle("fault", now() - Date.parse(time.dateTime) > 1000 * Number(time.dataset.stale));
}

setInterval(() => document.querySelectorAll("time[data-phrase]").forEach(tick), 1000);

export const between = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;

export function took(run) {
  if (!run.started_at) return element("span", { class: "soft" }, "—");
  if (!run.finished_at) return run.state === "running" || run.status === "running" ? moment(run.started_at, "for") : element("span", { class: "soft" }, "—");
  return element("span", { class: "number" }, span(between(run.started_at, run.finished_at)));
}
