// The page of one run: how far it is or why it waits, what was done and can be done, and its place in the chain.

import { read } from "./api.js";
import { act } from "./dialogs.js";
import { fork } from "./fork.js";
import { lineage } from "./lineage.js";
import { button, card, complain, draw, empty, fact, json, place, repeat } from "./parts.js";
import { runAgain } from "./run-again.js";
import { attempts, life } from "./run-life.js";
import { afterwards, needs, now } from "./run-now.js";
import { between, count, element, ENDED, moment, now as clock, span, state, took } from "./shared.js";
import { steps } from "./workflow.js";

const POLL_MS = 1000;
const AWAY_MS = 4000;
// So long after its end it is still looked whether another run answers it.
const LINGER_MS = 20_000;
const id = decodeURIComponent(location.pathname.split("/").pop());
const api = `/api/v1/runs/${encodeURIComponent(id)}`;
const PRIORITIES = ["low", "normal", "high", "urgent"];
let changes = [];
let graph = null;
let known = "";

const part = (name, data, make) => {
  if (!place(name)) place("board").append(element("div", { id: name, class: "slot" }));
  draw(name, data, make);
};

function show(run) {
  document.title = `${run.task} · ${run.status} · Carillon`;
  draw("head", [run.task, run.status, run.settled_at, Boolean(run.cancel), run.is_workflow], () => head(run));
  part("now", [run, changes, graph?.waits_for], now);
  part("steps", graph, () => graph && steps(graph, look));
  part("facts", run, facts);
  part("error", run.error, (error) => error && card("", "Error", error.type, element("p", { class: "empty fault" }, error.message), error.traceback ? element("pre", { class: "trace", id: "trace", tabindex: "0" }, error.traceback) : null));
  part("args", run.args, (args) => card("half", "Arguments", null, json(args, "args-json")));
  part("result", [run.result, run.stored_result, run.status], () => card("half", "Result", null, result(run)));
  part("attempts", [run.attempts, run.status, run.attempt, run.worker], () => card("", "Attempts", run.lost ? `${count(run.lost, "worker", "workers")} lost` : null, attempts(run)));
  part("life", [changes, run.attempts, run.worker], () => card("half", "Life", null, life([changes, run])));
  part("after", [run.after, run.needs], () => run.after && card("half", "After", afterwards(run.after), needs(run.needs)));
  part("chain", [run.cause, run.said, run.parent_id, run.is_workflow ? 0 : run.children, run.replay_of, run.replays], () => card("half", "Chain", "what caused it, and what it caused", lineage(run)));
}

function head(run) {
  return [
    element("p", { class: "crumbs" }, element("a", { id: "up", href: "/runs" }, "Runs"), " / run"),
    element("div", { class: "title" }, element("h1", {}, run.task), state(run.status), run.settled_at ? element("span", { class: "soft" }, "settled") : null, element("div", { class: "steer" }, ...buttons(run))),
    element("p", { class: "soft mono" }, run.id),
  ];
}

function buttons(run) {
  const waits = ["pending", "queued", "retrying"].includes(run.status);
  return [
    waits ? button("pause", "Pause", () => steer("pause", "Pause this run", "It does not start until somebody resumes it.", "Pause")) : null,
    run.status === "paused" ? button("resume", "Resume", () => steer("resume", "Resume this run", "It goes on as if it had not been paused.", "Resume"), { class: "primary" }) : null,
    !ENDED.has(run.status) ? button("cancel", "Cancel", () => steer("cancel", "Cancel this run", "What it submitted is cancelled with it. What waits ends at once; what executes is asked to stop.", "Cancel it", true), { class: "danger", disabled: run.cancel ? "" : null }) : null,
    run.status === "failed" && !run.settled_at ? button("settle", "Settle", () => steer("settle", "Settle this failure", "Nothing more has to be done about it: it leaves the dead letters.", "Settle")) : null,
    run.is_workflow && ENDED.has(run.status) ? button("fork", "Fork", branch) : null,
    ["failed", "cancelled", "partial"].includes(run.status) ? button("again", "Run again", again, { class: "primary" }) : null,
  ];
}

async function steer(verb, title, text, says, danger = false) {
  const done = await act({ title, text, verb: says, danger, path: `${api}/${verb}` });
  if (done) tell(done);
}

function tell(done) {
  const parts = [done.cancelled ? `${count(done.cancelled, "run was", "runs were")} cancelled.` : "", done.asked ? `${count(done.asked, "run that executes was", "runs that execute were")} asked to end.` : ""].filter(Boolean);
  complain(parts.join(" "), "done");
  look();
}

async function again() {
  const made = await runAgain(id);
  if (made) location.assign(`/runs/${made.run_id}`);
}

async function branch() {
  const made = await fork(id, graph);
  if (made) location.assign(`/runs/${made.run_id}`);
}

function result(run) {
  if (run.stored_result) return element("p", { class: "empty" }, `It has ${run.stored_result.bytes.toLocaleString("en")} bytes, so it lies in storage: `, element("a", { id: "stored", href: run.stored_result.url, target: "_blank", rel: "noopener" }, "read it"), ".");
  return run.result === null ? empty(ENDED.has(run.status) ? "None." : "Not yet.") : json(run.result, "result-json");
}

function facts(run) {
  const labels = Object.entries(run.labels).map(([name, value]) => `${name}: ${value}`).join(", ");
  return card("", "Facts", null, element("dl", { class: "facts" },
    fact("Domain", element("a", { id: "domain", href: `/runs?domain=${encodeURIComponent(run.domain)}` }, run.domain)), fact("Submitted by", run.actor), fact("Accepted", moment(run.created_at)),
    run.is_workflow ? fact(run.finished_at ? "Took" : "For", run.finished_at ? span(between(run.created_at, run.finished_at)) : moment(run.created_at, "for"))
      : ENDED.has(run.status) || run.started_at ? fact("Took", took(run)) : fact("Due", moment(run.run_at, "in")),
    run.is_workflow ? null : fact("Attempt", run.attempt), fact("Priority", PRIORITIES[run.priority] ?? run.priority),
    run.worker ? fact("Worker", element("a", { id: "worker", href: `/runs?worker=${encodeURIComponent(run.worker_id)}` }, run.worker)) : null,
    run.expires_at ? fact("Expires", moment(run.expires_at, "in")) : null,
    run.deadline_at ? fact("Deadline", moment(run.deadline_at, "in")) : null,
    labels ? fact("Labels", labels) : null,
    run.idempotency_key ? fact("Idempotency key", run.idempotency_key) : null,
    run.unique_key ? fact("Unique key", element("a", { id: "unique", href: `/runs?unique_key=${encodeURIComponent(run.unique_key)}` }, run.unique_key)) : null,
    run.callback_origin ? fact("Calls back", run.callback_origin) : null,
    run.beat_at ? fact("Last beat", moment(run.beat_at)) : null,
    run.worker_heard_at ? fact("Worker heard", moment(run.worker_heard_at)) : null,
    run.traceparent ? fact("Trace", element("span", { class: "mono" }, run.traceparent.split("-")[1])) : null));
}

async function once() {
  const [answer, seen] = await Promise.all([read(api), graph ? readGraph() : null]);
  if (answer.data === undefined) return refuse(answer);
  const run = answer.data;
  complainAway("");
  const changed = JSON.stringify([run.status, run.attempt, run.settled_at, run.cancel, run.holds, run.said.length, run.replays.length]);
  if (changed !== known) {
    changes = (await read(`${api}/history`)).data?.changes ?? changes;
    known = changed;
  }
  if (run.is_workflow) graph = (seen ?? (await readGraph())).data ?? graph;
  show(run);
  const related = [...run.said.flatMap((said) => said.answers), ...run.children, ...run.replays];
  const open = !ENDED.has(run.status) || related.some((other) => !ENDED.has(other.state));
  return open || clock() - Date.parse(run.finished_at) < LINGER_MS ? POLL_MS : null;
}

const readGraph = () => read(`/api/v1/workflows/${encodeURIComponent(id)}/graph`);

let away = false;

function complainAway(text) {
  if (away || text) complain(text);
  away = Boolean(text);
}

function refuse({ detail, status }) {
  if (!known) draw("head", detail, () => [element("p", { class: "crumbs" }, element("a", { id: "up", href: "/runs" }, "Runs"), " / run"), element("h1", {}, "This run cannot be shown"), element("p", { class: "soft" }, detail)]);
  else complainAway(detail);
  return status >= 500 ? AWAY_MS : null;
}

const look = repeat(once);
