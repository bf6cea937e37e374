// Windows in which something is asked before it is done. The reason goes into the audit trail.

import { element } from "./shared.js";
import { place } from "./parts.js";
import { send } from "./api.js";

const MOST_REASON = 500;

// A window over the page. Whoever opened it gets the focus back when it closes, also when the page was drawn anew.
export function modal(title, ...children) {
  const opener = document.activeElement?.id;
  const dialog = element("dialog", { "aria-label": title }, element("h2", {}, title), ...children);
  const closed = new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener && document.activeElement === document.body) place(opener)?.focus();
    resolve();
  }));
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, closed, close: () => dialog.close() };
}

export function field(id, title, input, hint = null) {
  input.id = id;
  return element("div", { class: "field" }, element("label", { for: id }, title, hint ? element("span", { class: "hint" }, ` ${hint}`) : null), input,
    element("p", { class: "fault", id: `${id}-fault`, hidden: "" }));
}

// Shows what is wrong with a field below it, or that nothing is.
export function mark(id, text) {
  const below = place(`${id}-fault`);
  below.textContent = text;
  below.hidden = !text;
  if (text) {
    place(id).setAttribute("aria-invalid", "true");
    place(id).setAttribute("aria-describedby", `${id}-fault`);
  } else {
    place(id).removeAttribute("aria-invalid");
    place(id).removeAttribute("aria-describedby");
  }
}

export function reasonField() {
  return field("reason", "Why", element("textarea", { rows: "2", maxlength: String(MOST_REASON), placeholder: "for whoever reads the audit trail" }), "may stay empty");
}

export const reasonGiven = () => {
  const reason = place("reason").value.trim();
  return reason ? { reason } : {};
};

// The buttons below everything, always in sight, and what is wrong beside them.
export const foot = (...buttons) => element("div", { class: "foot" }, element("p", { class: "notice", id: "complaint", role: "alert", hidden: "" }), element("div", { class: "actions" }, ...buttons));

export function say(text) {
  place("complaint").textContent = text;
  place("complaint").hidden = !text;
}

// Asks, does it, and gives what was answered; null when nothing was done. `body` gives what is sent beside the reason,
// or null when it has marked what is wrong; `faults` marks what the gateway found, and gives what belongs to no field.
export async function act({ title, text, verb, danger = false, parts = [], path, body = () => ({}), faults = (found) => found }) {
  let done = null;
  const submit = element("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const form = element("form", { onsubmit: async (event) => {
    event.preventDefault();
    say("");
    const given = body();
    if (given === null) return;
    submit.disabled = true;
    const answer = await send(path, { ...given, ...reasonGiven() });
    submit.disabled = false;
    if (answer === null) return say("Without a key nothing was changed.");
    if (answer.data === undefined) return refuse(answer, faults);
    done = answer.data;
    close();
  } },
    text ? element("p", {}, text) : null, ...parts, reasonField(), foot(element("button", { type: "button", onclick: () => close() }, "Back"), submit));
  const { close, closed, dialog } = modal(title, form);
  dialog.querySelector("input, textarea, select")?.focus();
  await closed;
  return done;
}

function refuse(answer, faults) {
  const rest = faults(answer.errors);
  const marked = rest.length < answer.errors.length;
  say(rest.length ? rest.map((fault) => `${fault.pointer} ${fault.detail}`).join("; ") : marked ? "Something does not fit; see below the fields." : answer.detail);
  place("complaint").closest("form").querySelector("[aria-invalid]")?.focus();
}
