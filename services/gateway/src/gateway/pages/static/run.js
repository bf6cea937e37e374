// The page of one run: its life, what it was given, what came of it, and its place in the chain.

import { askWithKey, element, moment, problem, runLink, span, state, took } from "./shared.js";

const POLL_MS = 1500;
const ENDED = new Set(["completed", "failed", "cancelled", "partial"]);
const id = decodeURIComponent(location.pathname.split("/").pop());
const main = document.getElementById("run");
let drawn = "";

const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
const json = (value) => element("pre", { tabindex: "0" }, JSON.stringify(value, null, 2));
const card = (kind, title, note, ...children) => element("section", { class: `card ${kind}`, "aria-label": title }, element("header", {}, element("h2", {}, title), element("span", { class: "soft" }, note ?? "")), ...children);
const empty = (text) => element("p", { class: "empty" }, text);

function show(run) {
  document.title = `${run.task} · ${run.status} · Carillon`;
  const labels = Object.entries(run.labels).map(([name, value]) => `${name}: ${value}`).join(", ");
  main.replaceChildren(
    element("p", { class: "crumbs" }, element("a", { href: "/" }, "Status"), " / run"),
    element("div", { class: "title" }, element("h1", {}, run.task), state(run.status)),
    element("p", { class: "soft mono" }, run.id),
    element("div", { class: "board" },
      card("", "Facts", null, element("dl", { class: "facts" },
        fact("Domain", run.domain), fact("Submitted by", run.actor), fact("Accepted", moment(run.created_at)),
        ENDED.has(run.status) || run.started_at ? fact("Took", took(run)) : fact("Due", moment(run.run_at, "in")),
        fact("Attempt", run.attempt), fact("Priority", ["low", "normal", "high", "urgent"][run.priority] ?? run.priority),
        run.expires_at ? fact("Expires", moment(run.expires_at, "in")) : null,
        run.lost ? fact("Workers lost", run.lost) : null,
        labels ? fact("Labels", labels) : null,
        run.idempotency_key ? fact("Idempotency key", run.idempotency_key) : null,
        run.traceparent ? fact("Trace", element("span", { class: "mono" }, run.traceparent.split("-")[1])) : null)),
      run.error ? card("", "Error", run.error.type, element("p", { class: "empty fault" }, run.error.message), run.error.traceback ? element("pre", { class: "trace", tabindex: "0" }, run.error.traceback) : null) : null,
      card("half", "Arguments", null, json(run.args)),
      card("half", "Result", null, run.result === null ? empty(ENDED.has(run.status) ? "None." : "Not yet.") : json(run.result)),
      card("half", "Life", null, life(run)),
      card("half", "Chain", "what caused it, and what it caused", chain(run))));
}

function life(run) {
  const entries = [entry("", "accepted", run.created_at, `by ${run.actor}`)];
  for (const attempt of run.attempts) {
    const seconds = attempt.started_at ? (Date.parse(attempt.finished_at) - Date.parse(attempt.started_at)) / 1000 : null;
    const error = attempt.error ? `${attempt.error.type}: ${attempt.error.message}` : null;
    entries.push(entry(attempt.outcome, `attempt ${attempt.attempt} ${attempt.outcome}`, attempt.finished_at, seconds === null ? null : `after ${span(seconds)}`, error));
  }
  if (run.status === "running") entries.push(entry("running", `attempt ${run.attempt} runs`, run.started_at, null));
  if (run.status === "retrying") entries.push(entry("", `attempt ${run.attempt} is due`, run.run_at, null));
  if (run.status === "queued") entries.push(entry("", "waits for a worker", run.run_at, null));
  return element("ol", { class: "timeline" }, ...entries);
}

function entry(kind, title, when, note, error) {
  return element("li", { class: kind }, element("span", { class: "strong" }, title), " ", element("span", { class: "sub" }, moment(when), note ? ` · ${note}` : ""), error ? element("span", { class: "sub fault line", title: error }, error) : null);
}

function chain(run) {
  const parts = [];
  if (run.cause) parts.push(element("div", { class: "said" }, element("div", {}, element("span", { class: "soft" }, "answers"), element("span", { class: "strong mono" }, run.cause.type), element("span", { class: "sub" }, run.cause.run_id ? element("a", { href: `/runs/${run.cause.run_id}` }, "said by this run") : `from ${run.cause.source}, by ${run.cause.actor}`))));
  for (const said of run.said) parts.push(saidBox(said));
  return parts.length ? element("div", { class: "chain" }, ...parts) : empty("It answers no event and said none.");
}

function saidBox({ event, data, answers }) {
  return element("div", { class: "said" },
    element("div", {}, element("span", { class: "soft" }, "said"), element("span", { class: "strong mono" }, event.type), element("span", { class: "sub" }, moment(event.recorded_at))),
    files(data),
    element("details", {}, element("summary", {}, "Data"), json(data)),
    answers.length ? element("ul", { class: "rows" }, ...answers.map((run) => element("li", {}, element("span", { class: "grow" }, runLink(run.id, run.task)), state(run.state)))) : null);
}

function files(data) {
  const shown = (Array.isArray(data.artefacts) ? data.artefacts : []).filter((file) => typeof file.key === "string" && file.key.startsWith("reports/"));
  if (!shown.length) return null;
  const address = (key) => `/files/${key.split("/").map(encodeURIComponent).join("/")}`;
  return element("div", {}, ...shown.map((file) => element("a", { class: "button", href: address(file.key), target: "_blank", rel: "noopener" }, String(file.format).toUpperCase())));
}

async function read() {
  const answer = await askWithKey(`/api/v1/runs/${encodeURIComponent(id)}`);
  if (!answer) return main.replaceChildren(empty("Seeing runs needs a key here. Load the page again to enter one."));
  if (!answer.ok) {
    main.replaceChildren(element("p", { class: "crumbs" }, element("a", { href: "/" }, "Status"), " / run"), element("h1", {}, "This run cannot be shown"), element("p", { class: "soft" }, await problem(answer)));
    return answer.status >= 500 ? setTimeout(read, POLL_MS * 3) : null;
  }
  const run = await answer.json();
  if (drawn !== JSON.stringify(run)) show(run);
  drawn = JSON.stringify(run);
  const open = !ENDED.has(run.status) || run.said.some((said) => said.answers.some((other) => !ENDED.has(other.state)));
  if (open || Date.now() - Date.parse(run.finished_at) < 20000) setTimeout(read, POLL_MS);
}

read().catch(() => main.replaceChildren(empty("The gateway does not answer. Load the page again in a moment.")));
