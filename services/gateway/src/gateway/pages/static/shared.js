// What all pages share: elements made of text only, times, the key, and asking the API.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

const STATES = new Set(["pending", "queued", "running", "retrying", "paused", "completed", "failed", "cancelled", "partial", "retried", "snoozed", "lost", "fired"]);

export function state(name) {
  return element("span", { class: `state ${STATES.has(name) ? name : ""}` }, name);
}

export function runLink(id, text) {
  return element("a", { href: `/runs/${encodeURIComponent(id)}`, class: "strong" }, text);
}

// The gateway's clock, by the Date of its answers: the reader's clock may be wrong.
let skew = 0;
export const now = () => Date.now() + skew;

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

export function took(run) {
  if (!run.started_at) return element("span", { class: "soft" }, "—");
  if (!run.finished_at) return run.state === "running" || run.status === "running" ? moment(run.started_at, "for") : element("span", { class: "soft" }, "—");
  return element("span", { class: "number" }, span((Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000));
}

// The key lives as long as the tab, and goes nowhere but into the header.
const KEY = "carillon-key";
const key = () => sessionStorage.getItem(KEY);

export async function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const answer = await fetch(path, { ...options, headers });
  const date = Date.parse(answer.headers.get("date"));
  if (date && Math.abs(date - Date.now()) > 5000) skew = date - Date.now();
  return answer;
}

export async function askWithKey(path, options = {}) {
  if (!key() && options.method === "POST" && !(await requestKey(""))) return null;
  for (;;) {
    const sent = key();
    const answer = await ask(path, options);
    if (answer.status !== 401) return answer;
    sessionStorage.removeItem(KEY);
    if (!(await requestKey(sent ? "That key is not known here." : ""))) return null;
  }
}

let asking = null;

function requestKey(complaint) {
  asking ??= openDialog(complaint).finally(() => (asking = null));
  return asking;
}

function openDialog(complaint) {
  const input = element("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", placeholder: "carillon_…", required: "" });
  return new Promise((resolve) => {
    const close = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const form = element("form", { onsubmit: (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      close(true);
    } },
      element("h2", {}, "This needs your key"),
      element("p", {}, complaint || "When Carillon started, it printed where the key is kept. It stays in this tab and is forgotten when you close it."),
      element("label", { for: "key" }, "Key"), input,
      element("div", { class: "actions" },
        element("button", { type: "button", onclick: () => close(false) }, "Not now"),
        element("button", { type: "submit", class: "primary" }, "Use this key")));
    const dialog = element("dialog", { "aria-label": "Key", oncancel: () => close(false) }, form);
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}

export async function problem(answer) {
  try { return (await answer.json()).detail || `HTTP ${answer.status}`; } catch { return `HTTP ${answer.status}`; }
}
