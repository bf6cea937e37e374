// Where a run comes from and what came of it: events, the run that submitted it, those it submitted, and repetitions.

import { details, empty, json, rows } from "./parts.js";
import { element, moment, runLink, state } from "./shared.js";

export function lineage(run) {
  const parts = [
    run.replay_of ? box("repeats", element("a", { href: `/runs/${run.replay_of}` }, "this run")) : null,
    run.parent_id ? box(run.step ? `step ${run.step} of` : "submitted by", element("a", { href: `/runs/${run.parent_id}` }, run.step ? "this workflow" : "this run")) : null,
    run.cause ? box("answers", element("span", { class: "strong mono" }, run.cause.type), element("span", { class: "sub" }, run.cause.run_id ? element("a", { href: `/runs/${run.cause.run_id}` }, "said by this run") : `from ${run.cause.source}, by ${run.cause.actor}`)) : null,
    ...run.said.map(saidBox),
    run.children.length && !run.is_workflow ? element("div", { class: "said" }, element("div", {}, element("span", { class: "soft" }, `submitted ${run.children.length}`)), list(run.children)) : null,
    run.replays.length ? element("div", { class: "said" }, element("div", {}, element("span", { class: "soft" }, "repeated by")), list(run.replays)) : null,
  ].filter(Boolean);
  return parts.length ? element("div", { class: "chain" }, ...parts) : empty("It answers no event, said none, and submitted no other run.");
}

const box = (what, ...parts) => element("div", { class: "said" }, element("div", {}, element("span", { class: "soft" }, what), ...parts));
const list = (runs) => rows(runs.map((run) => element("li", {}, element("span", { class: "grow" }, runLink(run.id, run.task)), state(run.state))));

function saidBox({ event, data, answers }) {
  return element("div", { class: "said" },
    element("div", {}, element("span", { class: "soft" }, "said"), element("span", { class: "strong mono" }, event.type), element("span", { class: "sub" }, moment(event.recorded_at))),
    files(data),
    details(`data-${event.id}`, "Data", json(data, `json-${event.id}`)),
    answers.length ? list(answers) : null);
}

function files(data) {
  const shown = (Array.isArray(data.artefacts) ? data.artefacts : []).filter((file) => typeof file.key === "string" && file.key.startsWith("reports/"));
  if (!shown.length) return null;
  const address = (key) => `/files/${key.split("/").map(encodeURIComponent).join("/")}`;
  return element("div", {}, ...shown.map((file) => element("a", { class: "button", href: address(file.key), target: "_blank", rel: "noopener" }, String(file.format).toUpperCase())));
}
