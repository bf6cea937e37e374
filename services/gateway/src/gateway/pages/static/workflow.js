// The graph of a workflow: a box for each step, or for many of one kind, in layers, with lines to what they came after.

import { decisionButtons } from "./decide.js";
import { card, mix, shape } from "./parts.js";
import { count, element, moment, span, state } from "./shared.js";

const KINDS = { task: "run", sleep: "sleep", event: "event", approval: "approval", repair: "repair", rest: "in between" };
// In the order in which counts are told and drawn.
const ORDER = ["completed", "partial", "running", "retrying", "queued", "pending", "waiting", "paused", "expired", "cancelled", "forgotten", "failed"];
// A graph of more boxes scrolls in its own place.
const TALL = 40;

// The card with the graph; `decided` is called when somebody has decided about a step.
export function steps(graph, decided) {
  const all = Object.values(graph.counts).reduce((sum, number) => sum + number, 0);
  return card("workflow", "Steps", all ? told(graph.counts) : "", notes(graph), all ? drawing(graph, decided) : element("p", { class: "empty" }, "It has asked for none yet."));
}

function notes(graph) {
  const changes = graph.code_changes.map((change) => element("p", { class: "told again" }, `From step ${change.step} on it went on in changed code (${change.code}).`));
  return changes.length ? element("div", { class: "notes" }, ...changes) : null;
}

const present = (counts) => ORDER.filter((name) => counts[name]);

function told(counts) {
  return present(counts).map((name) => `${counts[name].toLocaleString("en")} ${name}`).join(" · ");
}

function drawing(graph, decided) {
  const layers = [];
  for (const box of graph.boxes) (layers[box.layer] ??= []).push(box);
  const list = element("ol", { class: "layers", "aria-label": "Steps, in layers" }, ...layers.map((boxes) => element("li", {}, element("ul", { class: "layer" }, ...boxes.map((box) => boxed(box, graph, decided))))));
  const lines = shape("svg", { class: "edges", "aria-hidden": "true" });
  const place = element("div", { class: `graph ${graph.boxes.length > TALL ? "tall scroll" : ""}`, id: "graph", tabindex: graph.boxes.length > TALL ? "0" : null, role: graph.boxes.length > TALL ? "group" : null, "aria-label": graph.boxes.length > TALL ? "The graph, which scrolls" : null }, element("div", { class: "canvas" }, lines, list));
  // Where boxes are is known once they are there, and changes with the width of the page.
  new ResizeObserver(() => connect(lines, place, graph.boxes)).observe(list);
  return place;
}

function connect(lines, place, boxes) {
  const whole = lines.parentElement.getBoundingClientRect();
  const at = new Map([...place.querySelectorAll("[data-box]")].map((box) => [Number(box.dataset.box), box.getBoundingClientRect()]));
  lines.setAttribute("viewBox", `0 0 ${whole.width} ${whole.height}`);
  lines.replaceChildren(...boxes.flatMap((box) => box.after.filter((first) => at.has(first)).flatMap((first) => edge(at.get(first), at.get(box.first), whole))));
}

function edge(from, to, whole) {
  const [x1, y1, x2, y2] = [from.left + from.width / 2 - whole.left, from.bottom - whole.top, to.left + to.width / 2 - whole.left, to.top - whole.top];
  const bend = Math.max(12, (y2 - y1) / 2);
  const end = y2 - 5;
  return [shape("path", { d: `M ${x1} ${y1} C ${x1} ${y1 + bend} ${x2} ${end - bend} ${x2} ${end}` }), shape("path", { class: "tip", d: `M ${x2 - 4} ${end - 1} L ${x2} ${y2} L ${x2 + 4} ${end - 1} Z` })];
}

function boxed(box, graph, decided) {
  const from = box.after.length ? element("span", { class: "unseen" }, ` after ${box.after.map((first) => `step ${first}`).join(", ")}`) : null;
  const one = box.step;
  return element("li", { class: `step ${one ? mood(one) : `many ${moods(box.counts)}`}`, "data-box": box.first },
    element("span", { class: "step-head" }, element("span", { class: "sub" }, `${where(box)} · ${KINDS[box.kind] ?? box.kind}`, from), one ? badge(one) : element("span", { class: "strong number" }, `× ${total(box).toLocaleString("en")}`)),
    one ? single(one, graph, decided) : many(box, graph));
}

const where = (box) => (box.first === box.last ? box.first : `${box.first}–${box.last}`);
const total = (box) => Object.values(box.counts).reduce((sum, number) => sum + number, 0);
const mood = (step) => (step.state === "waiting" && ["approval", "repair"].includes(step.kind) ? "asks" : step.state);

// Of many steps the worst that is to be seen at once, and else how most of them are.
const moods = (counts) => ["failed", "retrying", "running"].find((name) => counts[name]) ?? present(counts).sort((one, other) => counts[other] - counts[one])[0];

// What somebody decided is told in the word that they chose.
function badge(step) {
  if (step.state !== "completed" || !["approval", "repair"].includes(step.kind)) return state(step.state);
  const words = step.kind === "repair" ? ["tried again", "done by hand"] : ["approved", "refused"];
  return element("span", { class: `state ${step.result?.approved || step.kind === "repair" ? "completed" : "refused"}` }, step.result?.approved ? words[0] : words[1]);
}

function single(step, graph, decided) {
  const name = step.run_id ? element("a", { id: `step-${step.seq}`, class: "strong", href: `/runs/${step.run_id}` }, step.name) : element("span", { class: "strong" }, step.kind === "sleep" ? "Sleep" : step.name);
  return [
    element("span", { class: "step-name" }, name),
    element("span", { class: "sub" }, ...facts(step)),
    step.error && step.state !== "completed" ? element("span", { class: "sub fault clamp", title: step.error.message ?? "" }, step.error.message ?? step.error.type) : null,
    step.state === "waiting" && ["approval", "repair"].includes(step.kind) ? element("span", { class: "acts" }, ...decisionButtons({ ...step, question: step.name, workflow_id: graph.workflow_id }, decided)) : null,
  ];
}

function facts(step) {
  const open = !step.ended_at && ["waiting", "running", "queued", "pending", "retrying", "paused"].includes(step.state);
  const parts = [
    step.seconds !== null ? [span(step.seconds)] : null,
    open && step.state === "running" ? [moment(step.started_at ?? step.asked_at, "for")] : null,
    open && step.state !== "running" && step.due_at === null ? ["since ", moment(step.asked_at, "ago")] : null,
    open && step.due_at ? [step.kind === "sleep" ? "over " : "given up ", moment(step.due_at, "in")] : null,
    step.attempts > 1 ? [count(step.attempts, "attempt", "attempts")] : null,
    step.kind === "event" && Object.keys(step.match ?? {}).length ? [Object.entries(step.match).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(", ")] : null,
    step.result?.by && ["approval", "repair"].includes(step.kind) ? [`by ${step.result.by}${step.result.reason ? `: ${step.result.reason}` : ""}`] : null,
  ].filter(Boolean);
  return parts.flatMap((part, at) => (at ? [" · ", ...part] : part));
}

function many(box, graph) {
  const runs = (more = "") => `/runs?parent=${graph.workflow_id}&task=${encodeURIComponent(box.name)}${more}`;
  const name = box.kind === "task" ? element("a", { id: `step-${box.first}`, class: "strong", href: runs() }, box.name) : element("span", { class: "strong" }, box.kind === "sleep" ? "Sleep" : box.name);
  const failed = box.kind === "task" && box.counts.failed ? element("a", { id: `failed-${box.first}`, class: "sub fault", href: runs("&state=failed") }, `see the ${count(box.counts.failed, "that failed", "that failed").replace(/^1 /, "one ")}`) : null;
  return [element("span", { class: "step-name" }, name), mix(box.counts, present(box.counts)), element("span", { class: "sub" }, told(box.counts)), failed];
}
