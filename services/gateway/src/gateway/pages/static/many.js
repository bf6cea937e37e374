// Acting on many runs: what would be done is shown first, then it is done, part by part, before the reader's eyes.

import { read, send } from "./api.js";
import { field, foot, modal, reasonField, reasonGiven, say } from "./dialogs.js";
import { place } from "./parts.js";
import { count, element, ENDED, moment, now, runLink, state, STATES } from "./shared.js";

export const ACTS = {
  cancel: { verb: "Cancel", past: "cancelled", fits: "has not ended", danger: true, warns: "What they submitted is cancelled with them. What executes is asked to stop." },
  replay: { verb: "Run again", past: "handed over to run again", fits: "failed, was cancelled or is partial, and was not run again since", warns: "Each becomes a run of its own that names the one it repeats." },
  settle: { verb: "Settle", past: "settled", fits: "failed and was not settled", warns: "Nothing more has to be done about them: they leave the dead letters, and stay in the history." },
  delete: { verb: "Delete", past: "deleted", fits: "has ended", danger: true, warns: "They are gone for good, with their attempts and results; a copy of a result in Redis goes when it expires. The audit trail says that they were deleted." },
};
const runs = (number) => count(number, "run", "runs");
const does = (action, total) => (action === "replay" ? `Run ${runs(total)} again` : `${ACTS[action].verb} ${runs(total)}`);
const FOLLOW_MS = 1500;
const PAGE = 200;
const MOST_PAGES = 5;

// How fast runs are repeated, and whether one goes ahead.
export function paceFields() {
  const canary = element("input", { type: "checkbox", id: "canary", checked: "" });
  return [
    field("rate", "Runs started each second", element("input", { type: "number", min: "0.01", max: "10000", step: "any", value: "50", required: "" })),
    element("label", { class: "check", for: "canary" }, canary, element("span", {}, "One goes ahead; the others start when it has completed, and are cancelled when it has not")),
  ];
}

export const paceGiven = () => ({ rate: Number(place("rate").value), canary: place("canary").checked });

// Shows what an act would do to the runs that fit these filters, and does it when it is wished. Gives how many were done.
export async function preview(action, filters) {
  const chosen = await send("/api/v1/selections", { action, filters });
  if (!chosen?.data) return { done: 0, detail: chosen?.errors?.map((fault) => `${fault.pointer} ${fault.detail}`).join("; ") || chosen?.detail || "" };
  const { token, count: total, sample, expires_at: until } = chosen.data;
  const { verb, fits, warns, danger } = ACTS[action];
  const found = sample.length < total ? `${runs(total)}, here are ${sample.length}.` : `${runs(total)}.`;
  let done = 0;
  const form = element("form", { onsubmit: async (event) => {
    event.preventDefault();
    const wishes = { ...(action === "replay" ? paceGiven() : {}), ...reasonGiven() };
    done = await perform(window_, { action, token, total, wishes });
  } },
    element("p", {}, total ? `${found} ${warns}` : `None of the runs that fit ${fits}, so there is nothing to do.`),
    total ? samples(sample) : null,
    total ? [action === "replay" ? paceFields() : null, reasonField(), element("p", { class: "hint" }, "This preview is good until ", new Date(until).toLocaleTimeString(), "; what arrives meanwhile is not touched.")].flat() : null,
    foot(element("button", { type: "button", onclick: () => window_.close() }, "Back"), total ? element("button", { type: "submit", class: danger ? "danger" : "primary" }, does(action, total)) : null));
  const window_ = modal(`${verb}: a preview`, form);
  window_.dialog.classList.add("wide");
  await window_.closed;
  return { done };
}

function samples(list) {
  return element("ul", { class: "rows sample", tabindex: "0", "aria-label": "Sample" }, ...list.map((run) => element("li", {},
    element("span", { class: "grow" }, runLink(run.id, run.task), run.error ? element("span", { class: "line sub fault" }, run.error) : null), state(run.state), element("span", { class: "right sub" }, moment(run.created_at)))));
}

// Does it, in a window that is open, until nothing remains or somebody stops it.
export async function perform(open, { action, token, total, wishes, begun = null, task = null }) {
  const since = new Date(now() - 2000).toISOString();
  const bar = element("progress", { max: String(total), value: "0", "aria-label": "Done" });
  const told = element("p", { class: "strong number", role: "status" }, `0 of ${runs(total)}`);
  const button = element("button", { type: "button", id: "stop" }, "Stop");
  const more = element("div", { id: "replayed" });
  open.dialog.replaceChildren(element("h2", {}, does(action, total)), bar, told, more, foot(button));
  button.focus();
  let last = begun ?? { done: 0, skipped: 0, remaining: total, canary: null };
  let stopped = false;
  button.onclick = () => (stopped = true);
  for (;;) {
    bar.value = last.done;
    told.textContent = `${(last.done - last.skipped).toLocaleString("en")} of ${runs(total)} ${ACTS[action].past}`;
    if (last.skipped) told.textContent += `; ${last.skipped.toLocaleString("en")} needed nothing any more`;
    if (!last.remaining || stopped || !open.dialog.isConnected) break;
    const answer = await send(`/api/v1/selections/${token}/act`, wishes);
    if (!answer?.data) {
      say(answer?.detail ?? "Without a key nothing more is done.");
      break;
    }
    last = answer.data;
  }
  if (last.remaining) told.textContent += `; ${last.remaining.toLocaleString("en")} are untouched`;
  else bar.classList.add("good");
  button.textContent = "Close";
  button.onclick = () => open.close();
  const changed = last.done - last.skipped;
  if (action === "replay" && changed) follow(open, more, { task, since, canary: last.canary, made: changed, rate: wishes.rate });
  return changed;
}

// How the repetitions fare: the one that goes ahead, then all of them, as long as the window is open.
async function follow(open, into, { task, since, canary, made, rate }) {
  const first = element("p", {});
  const bar = element("progress", { max: String(made), value: "0", "aria-label": "Ended" });
  const told = element("p", { class: "sub", role: "status" });
  into.replaceChildren(...(canary ? [first] : []), bar, told);
  // It was made first: what is older repeats something by another act.
  const oldest = (canary && (await read(`/api/v1/tasks/${canary}/status`)).data?.created_at) || since;
  for (;;) {
    // All of them first: when they have ended, so has the one that is asked about after.
    const fates = await fate(task, oldest);
    const ahead = canary ? (await read(`/api/v1/tasks/${canary}/status`)).data : null;
    if (ahead) first.replaceChildren(runLink(canary, "The run that goes ahead"), " ", state(ahead.status), " ", verdict(ahead.status, made, rate));
    const ended = [...ENDED].reduce((sum, name) => sum + (fates[name] ?? 0), 0);
    bar.value = Math.min(ended, made);
    bar.classList.toggle("good", ended >= made && fates.completed === ended);
    told.textContent = STATES.filter((name) => fates[name]).map((name) => `${fates[name].toLocaleString("en")} ${name}`).join(" · ");
    if (!open.dialog.isConnected || ended >= Math.min(made, PAGE * MOST_PAGES)) return;
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
  }
}

function verdict(status, made, rate) {
  if (made === 1) return "";
  if (status === "completed") return `and the others follow, ${rate} each second.`;
  return ENDED.has(status) ? "so the others are cancelled; what they repeat stays a dead letter." : `while ${count(made - 1, "other waits", "others wait")}.`;
}

async function fate(task, since) {
  const found = {};
  let cursor = null;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const query = new URLSearchParams({ since, limit: String(PAGE), ...(task ? { task } : {}), ...(cursor ? { cursor } : {}) });
    const { data } = await read(`/api/v1/runs?${query}`);
    for (const run of data?.runs ?? []) if (run.replay_of) found[run.state] = (found[run.state] ?? 0) + 1;
    cursor = data?.next_cursor;
    if (!cursor) break;
  }
  return found;
}
