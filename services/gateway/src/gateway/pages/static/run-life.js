// What happened to a run: its attempts one by one, and its changes of state.

import { details, empty } from "./parts.js";
import { between, element, moment, span } from "./shared.js";

export function attempts(run) {
  const ended = run.attempts.map((attempt) => one(attempt));
  if (run.status === "running") ended.push(entry("running", `attempt ${run.attempt} runs`, run.started_at, run.worker ? `on ${run.worker}` : null));
  return ended.length ? element("ol", { class: "timeline" }, ...ended) : empty("No worker has begun it.");
}

function one(attempt) {
  const id = `attempt-${attempt.attempt}`;
  const notes = [attempt.started_at ? `after ${span(between(attempt.started_at, attempt.finished_at))}` : null, attempt.worker ? `on ${attempt.worker}` : null];
  const made = entry(attempt.outcome, `attempt ${attempt.attempt} ${attempt.outcome.replace("_", " ")}`, attempt.finished_at, notes.filter(Boolean).join(" · "), attempt.error);
  if (attempt.error?.traceback) made.append(details(`${id}-trace`, "Traceback", element("pre", { class: "trace", id: `${id}-trace-text`, tabindex: "0" }, attempt.error.traceback)));
  if (attempt.log) made.append(details(`${id}-log`, "Log", element("pre", { id: `${id}-log-text`, tabindex: "0" }, attempt.log)));
  return made;
}

// Its history as the gateway tells it, with the names of workers instead of their ids.
export function life([changes, run]) {
  const workers = new Map([run, ...run.attempts].map((one) => [`worker ${one.worker_id}`, one.worker]));
  const steps = changes.map((change) => {
    const [what, ...why] = change.what.split(": ");
    const step = entry(change.state ?? "", what, change.at, `by ${workers.get(change.by) ?? change.by}`);
    if (why.length) step.append(element("span", { class: "line sub" }, why.join(": ")));
    return step;
  });
  return element("ol", { class: "timeline" }, ...steps);
}

function entry(kind, title, when, note, error = null) {
  const told = error ? `${error.type}: ${error.message}` : null;
  return element("li", { class: kind }, element("span", { class: "strong" }, title), " ", element("span", { class: "sub" }, moment(when), note ? ` · ${note}` : ""), told ? element("span", { class: "sub fault line", title: told }, told) : null);
}
