// A group of failed runs: look at each, run it again with other arguments, or deal with all of them at once.

import { send } from "./api.js";
import { act, foot, modal, reasonField, reasonGiven, say } from "./dialogs.js";
import { paceFields, paceGiven, perform } from "./many.js";
import { button, card, complain, details, empty, json, line } from "./parts.js";
import { runAgain } from "./run-again.js";
import { count, element, moment, runLink } from "./shared.js";

const runs = (number) => count(number, "run", "runs");

export const deadRuns = {
  head: (members, seen, { fingerprint, task, look }) => {
    const [{ error, task: first }] = members;
    const group = { fingerprint, task: task ?? (members.every((run) => run.task === first) ? first : null), total: seen.count, look };
    return {
      title: error ? error.type : "Workers died",
      where: element("span", { class: "mono" }, task ?? first),
      buttons: [
        group.task ? button("pause-task", "Pause task", () => pause(group)) : null,
        button("discard", "Discard all", () => discard(group), { class: "danger" }),
        button("replay", "Run all again", () => replayAll(group), { class: "primary" }),
      ],
    };
  },
  list: (members, seen, look) => card("", "Runs", seen.count > members.length ? `the newest ${members.length} of ${seen.count.toLocaleString("en")}` : "newest first",
    members.length ? element("ul", { class: "rows" }, ...members.map((run) => member(run, look))) : empty("None.")),
};

function member(run, look) {
  const args = run.args === null ? "large: see the run" : JSON.stringify(run.args);
  const link = runLink(run.id, run.error?.message ?? "its worker died");
  link.id = `run-${run.id}`;
  return element("li", { class: "member" }, element("span", { class: "grow" }, link,
    line({ class: "sub mono", title: args }, args),
    line({ class: "sub" }, "failed ", moment(run.finished_at), ` · attempt ${run.attempt} · by ${run.actor}`),
    details(`more-${run.id}`, "Arguments and traceback", run.args === null ? null : json(run.args, `args-${run.id}`), run.error?.traceback ? element("pre", { class: "trace", id: `trace-${run.id}`, tabindex: "0" }, run.error.traceback) : null)),
  element("span", { class: "acts" },
    button(`settle-${run.id}`, "Settle", () => settle(run, look)),
    button(`again-${run.id}`, "Edit and run again", () => again(run, look))));
}

async function again(run, look) {
  const made = await runAgain(run.id);
  if (made) complain("");
  if (made) showMade(made);
  look();
}

function showMade(made) {
  complain("Runs again as ", "done");
  document.getElementById("notice").append(runLink(made.run_id, "a run of its own"), ".");
}

async function settle(run, look) {
  const done = await act({ title: "Settle this failure", text: "Nothing more has to be done about it: it leaves the dead letters, and stays in the history.", verb: "Settle", path: `/api/v1/runs/${run.id}/settle` });
  if (done) complain("One run was settled.", "done");
  look();
}

async function pause({ task, look }) {
  const done = await act({ title: `Pause ${task}`, text: "Nothing of it starts until it is resumed, here or on the status page. What executes goes on, and what is submitted waits.", verb: "Pause", path: `/api/v1/tasks/${encodeURIComponent(task)}/pause` });
  if (done) complain(`${task} is paused; the status page resumes it.`, "done");
  look();
}

async function discard({ fingerprint, task, total, look }) {
  const path = `/api/v1/dead-letters/${encodeURIComponent(fingerprint)}/discard`;
  const body = task ? { task } : {};
  let done = await act({ title: `Discard ${runs(total)}`, text: "They are settled: nothing more has to be done about them, and they stay in the history.", verb: `Discard ${runs(total)}`, danger: true, path, body: () => body });
  let sum = done?.count ?? 0;
  while (done?.remaining) {
    done = (await send(path, body))?.data;
    sum += done?.count ?? 0;
  }
  if (sum) complain(`${runs(sum)} discarded.`, "done");
  look();
}

async function replayAll({ fingerprint, task, total, look }) {
  const form = element("form", { onsubmit: async (event) => {
    event.preventDefault();
    say("");
    const wishes = { ...paceGiven(), ...reasonGiven() };
    const answer = await send(`/api/v1/dead-letters/${encodeURIComponent(fingerprint)}/replay`, { ...wishes, ...(task ? { task } : {}) });
    if (!answer?.data) return say(answer?.detail ?? "Without a key nothing was changed.");
    const { selection: token, count: all } = answer.data;
    await perform(window_, { action: "replay", token, total: all, wishes, begun: answer.data, task });
  } },
    element("p", {}, "Each becomes a run of its own, with the arguments it had. Mend what made them fail first; one that goes ahead shows whether that worked."),
    ...paceFields(), reasonField(),
    foot(element("button", { type: "button", onclick: () => window_.close() }, "Back"), element("button", { type: "submit", class: "primary" }, `Run ${runs(total)} again`)));
  const window_ = modal("Run all again", form);
  await window_.closed;
  look();
}
