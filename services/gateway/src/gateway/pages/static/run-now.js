// What a run does now: how far it is, why it waits, or that it is about to end.

import { card, empty, json, left, progressBar, rows } from "./parts.js";
import { between, element, ENDED, moment, now as clock, runLink, span, state } from "./shared.js";

export function now([run, changes, awaited]) {
  if (run.status === "running") return running(run);
  if (ENDED.has(run.status)) return run.status !== "completed" && reported(run) ? progress(run, "How far it came") : null;
  return waiting(run, changes, awaited);
}

// What an earlier attempt reported says nothing about this one.
const reported = (run) => run.progress && (!run.started_at || between(run.started_at, run.progress.at) > -1);

function running(run) {
  const asked = run.cancel ? element("p", { class: "empty again" }, `Asked to end: ${run.cancel.message}. It ends when its code has stopped, at the latest with the grace that its task grants.`) : null;
  return reported(run) ? progress(run, "Progress", asked) : card("", "Progress", null, asked, empty("It has not reported how far it is."));
}

function progress(run, title, ...more) {
  const [bar, percent] = progressBar(run.progress, "Progress");
  const measured = run.progress.fraction !== null;
  return card("", title, measured ? `${percent} %` : "",
    element("div", { class: "progress" }, measured ? bar : null,
      element("p", { class: "told" }, element("span", { class: "strong" }, run.progress.stage ?? ""), element("span", {}, run.progress.message ?? ""),
        element("span", { class: "soft end" }, run.status === "running" && measured ? [left(run.progress), " · "] : "", "reported ", moment(run.progress.at)))),
    ...more,
    run.partial === null ? null : [element("h3", { class: "soft" }, "So far"), json(run.partial, "partial")]);
}

function waiting(run, changes, awaited) {
  const why = [
    ...run.holds.map((hold) => reason("paused", [element("span", { class: "strong" }, hold.name), ` is paused by ${hold.actor}, `, moment(hold.since), hold.reason ? `: ${hold.reason}` : "", ". Nothing of it starts until it is resumed on the ", element("a", { id: `held-${hold.name}`, href: "/" }, "status page"), "."])),
    run.status === "paused" ? reason("paused", pausedBy(changes)) : null,
    run.status === "pending" && run.is_workflow ? reason("pending", [`${awaited ?? "It waits for its steps"}, and holds no slot of a worker meanwhile.`]) : null,
    run.status === "pending" && !run.is_workflow ? reason("pending", [`It waits for ${run.needs.filter((need) => need.outcome === null).length || "other"} of ${run.needs.length} runs:`], needs(run.needs)) : null,
    run.gated ? reason("queued", [`It waits for ${run.awaited_limit ?? "its turn"}.`]) : null,
    run.status === "retrying" ? reason("retrying", [`Attempt ${run.attempt} is due `, moment(run.run_at, "in"), "."]) : null,
  ].filter(Boolean);
  if (!why.length) why.push(reason("queued", Date.parse(run.run_at) - clock() > 1500 ? ["It is due ", moment(run.run_at, "in"), "."] : ["It is due, and starts when a worker of ", element("span", { class: "strong" }, run.domain), " has a free slot."]));
  return card("", "Why it waits", null, rows(why));
}

const reason = (name, words, more = null) => element("li", {}, state(name), element("span", { class: "grow" }, element("span", {}, ...words), more));

function pausedBy(changes) {
  const pause = changes.findLast((change) => change.state === "paused");
  const why = pause?.what.split(": ").slice(1).join(": ");
  return pause ? [`Paused by ${pause.by}, `, moment(pause.at), why ? `: ${why}` : "", "."] : ["It is paused until somebody resumes it."];
}

const WHEN = { succeeded: "all of them completed", ended: "all of them ended, however", any: "one of them completed" };
const OTHERWISE = { cancel: "else it is cancelled", run: "else it goes on when all of them ended" };

// When a run that comes after others goes on, in words.
export function afterwards(after) {
  return `goes on when ${WHEN[after.when]}${after.delay_seconds ? `, ${span(after.delay_seconds)} later` : ""}, ${OTHERWISE[after.otherwise]}`;
}

export function needs(list) {
  return element("ul", { class: "plain" }, ...list.map((need) => element("li", {}, need.task ? runLink(need.id, need.task) : element("span", { class: "mono" }, need.id), " ", state(need.outcome ?? need.state ?? "forgotten"))));
}
