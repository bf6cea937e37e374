// Asking the gateway: with the reader's key where one is needed, and with the gateway's clock.

import { element, correct } from "./shared.js";

// The key lives as long as the tab, and goes nowhere but into the header.
const KEY = "carillon-key";
const key = () => sessionStorage.getItem(KEY);

export async function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const answer = await fetch(path, { ...options, headers });
  correct(Date.parse(answer.headers.get("date")));
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

// What changes something: `{data}` of the answer, `{detail, errors}` of a problem, or null when no key was given.
export async function send(path, body) {
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await askWithKey(path, options);
    if (!answer) return null;
    return answer.ok ? { data: await answer.json() } : await problemOf(answer);
  } catch {
    return { detail: "The gateway does not answer; what became of this is seen when it is back.", errors: [] };
  }
}

// What reads: the same, and never throws.
export async function read(path) {
  try {
    const answer = await askWithKey(path);
    if (!answer) return { detail: "Seeing this needs a key. Load the page again to enter one.", errors: [], status: 401 };
    return answer.ok ? { data: await answer.json() } : await problemOf(answer);
  } catch {
    return { detail: "The gateway does not answer; this is tried again by itself.", errors: [], status: 503 };
  }
}

async function problemOf(answer) {
  const { detail, errors } = await answer.json().catch(() => ({}));
  return { detail: detail || `HTTP ${answer.status}`, errors: errors ?? [], status: answer.status };
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
