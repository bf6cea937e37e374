// Statistics: what ended in a window of time, how it went over the window, and where time and failures go by task.

import { read } from "./api.js";
import { card, code, complain, draw, empty, place, repeat } from "./parts.js";
import { count, element, ENDED, now, STATES } from "./shared.js";
import { course } from "./statistics-course.js";
import { brief, byTask, percent, rounded } from "./statistics-tasks.js";
import { suggest } from "./suggest.js";

const TYPING_MS = 300;
const HOUR_MS = 3_600_000;
// How long each window is, and how often it is counted anew: the longer it is, the less a moment changes.
const WINDOWS = {
  hour: ["Last hour", HOUR_MS, 5_000],
  day: ["Last day", 24 * HOUR_MS, 10_000],
  week: ["Last week", 7 * 24 * HOUR_MS, 30_000],
};
const OWN_MS = 10_000;
const FIELDS = {
  since: ["Ended from", { type: "datetime-local" }],
  until: ["Ended until", { type: "datetime-local" }],
  domain: ["Domain", { placeholder: "billing", list: "known-domain" }],
  task: ["Task", { placeholder: "billing.send_invoice", list: "known-task" }],
};
const MOMENTS = new Set(["since", "until"]);

// What the address says. Moments are of UTC in it, so that it means the same to whoever it is sent to.
let wanted = new URLSearchParams(location.search);
let newest = null;

const own = () => wanted.has("since") || wanted.has("until") || wanted.get("window") === "own";
const chosen = () => (own() ? "own" : wanted.get("window") in WINDOWS ? wanted.get("window") : "day");

// A moment as the field of a form wants it: by the reader's clock, to the minute.
function local(iso) {
  const at = new Date(iso ?? "");
  return Number.isNaN(at.valueOf()) ? "" : new Date(at - 60_000 * at.getTimezoneOffset()).toISOString().slice(0, 16);
}

function form() {
  const windows = [...Object.entries(WINDOWS).map(([name, [title]]) => [name, title]), ["own", "From … until …"]];
  place("filters").replaceChildren(
    element("fieldset", {}, element("legend", {}, "Window"), ...windows.map(([name, title]) => element("label", { class: "chip" },
      element("input", { type: "radio", name: "window", id: `window-${name}`, value: name, checked: chosen() === name ? "" : null }), element("span", {}, title))),
    element("button", { type: "button", id: "clear", onclick: clear }, "Clear")),
    ...Object.entries(FIELDS).map(([name, [title, more]]) => element("div", { id: `field-${name}` }, element("label", { for: `by-${name}` }, title),
      element("input", { id: `by-${name}`, name, value: MOMENTS.has(name) ? local(wanted.get(name)) : wanted.get(name) ?? "", spellcheck: "false", autocomplete: "off", maxlength: "200", ...more }),
      more.list ? element("datalist", { id: more.list }) : null)));
  showOwn();
}

function showOwn() {
  for (const name of MOMENTS) place(`field-${name}`).hidden = chosen() !== "own";
}

let typing = null;

function changed(pause) {
  clearTimeout(typing);
  typing = setTimeout(take, pause);
}

// From the form into the address.
function take() {
  const given = Object.fromEntries([...new FormData(place("filters"))].map(([name, text]) => [name, text.trim()]));
  if (given.window === "own" && chosen() !== "own" && newest) {
    // Who wants a window of their own begins with the one they see.
    for (const name of MOMENTS) place(`by-${name}`).value = given[name] = local(newest[name]);
  }
  const kept = new URLSearchParams();
  if (given.window !== "day") kept.set("window", given.window);
  for (const name of Object.keys(FIELDS)) {
    if (!given[name] || (MOMENTS.has(name) && given.window !== "own")) continue;
    // To the minute the field tells what the address says already, perhaps to the second.
    const same = MOMENTS.has(name) && wanted.has(name) && local(wanted.get(name)) === given[name];
    kept.set(name, same ? wanted.get(name) : MOMENTS.has(name) ? new Date(given[name]).toISOString() : given[name]);
  }
  if (wanted.has("sort")) kept.set("sort", wanted.get("sort"));
  want(kept);
}

function clear() {
  want(new URLSearchParams());
  form();
  suggest();
  place("window-day").focus();
}

function want(kept) {
  if (kept.toString() === wanted.toString()) return;
  wanted = kept;
  keep();
  showOwn();
  look();
}

function keep() {
  history.replaceState(null, "", `${location.pathname}${wanted.size ? `?${wanted}` : ""}`);
}

function sort(by) {
  wanted.set("sort", by);
  keep();
  if (newest) show(newest);
}

function query() {
  const asked = new URLSearchParams();
  for (const name of Object.keys(FIELDS)) if (wanted.get(name)) asked.set(name, wanted.get(name));
  if (!own()) asked.set("since", new Date(now() - WINDOWS[chosen()][1]).toISOString());
  return asked;
}

// Null when nothing more can end in the window.
function pause() {
  if (!own()) return WINDOWS[chosen()][2];
  return wanted.get("until") && Date.parse(wanted.get("until")) < now() ? null : OWN_MS;
}

// What the numbers depend on: all that the address says but the order.
function question() {
  const said = new URLSearchParams(wanted);
  said.delete("sort");
  return said.toString();
}

async function once() {
  const asked = question();
  const { data, detail, errors, status } = await read(`/api/v1/statistics?${query()}`);
  if (asked !== question()) return OWN_MS;
  complain(data ? "" : refusal(detail, errors));
  if (data) show((newest = data));
  // What was refused has no numbers; what cannot be had right now keeps the last ones, and the notice says why.
  else if (status < 500) hide();
  if (data) return pause();
  return status >= 500 ? OWN_MS : null;
}

// The sentences of the API. One of the window as a whole, or of all that was asked, needs no name before it.
function refusal(detail, errors) {
  const ofAll = (fault) => fault.pointer === "query" || fault.detail.startsWith("a window");
  const sentences = errors.map((fault) => (ofAll(fault) ? fault.detail : `${FIELDS[fault.pointer]?.[0] ?? fault.pointer}: ${fault.detail}`));
  const text = sentences.join("; ") || detail;
  return `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}

function hide() {
  newest = null;
  for (const id of ["asked", "totals", "course", "tasks"]) draw(id, null, () => []);
}

const sum = (counts, names) => names.reduce((total, name) => total + (counts[name] ?? 0), 0);

function show(data) {
  const ended = sum(data.total.counts, [...ENDED]);
  draw("asked", [data.since, data.until, data.share], () => asked(data));
  draw("totals", figures(data, ended), (list) => list.map(figure));
  draw("course", [data.buckets, data.since, data.until, ended], () => (ended ? course(data) : []));
  draw("tasks", [data, wanted.toString()], () => (ended ? byTask(data, wanted.get("sort"), sort) : nothing(data)));
}

function asked({ since, until, share }) {
  const text = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return [element("span", {}, "Ended from ", element("time", { datetime: since, class: "number" }, text(since)), " until ", element("time", { datetime: until, class: "number" }, text(until)), ", by your clock."),
    share < 1 ? element("span", { class: "again" }, `So much ended that the numbers are estimated, from ${percent(share)} of it.`) : null];
}

// The runs that a number counts: in the same window where they ended, and of the same domain and task.
function runs(states, { since, until } = {}) {
  const asked = new URLSearchParams(states.map((name) => ["state", name]));
  for (const name of ["domain", "task"]) if (wanted.get(name)) asked.set(name, wanted.get(name));
  if (since) asked.set("finished_since", since);
  if (until) asked.set("finished_until", until);
  return `/runs?${asked}`;
}

const LIVING = STATES.filter((name) => !ENDED.has(name));

function figures({ total, live, since, until }, ended) {
  const { counts, failure_rate: rate, per_hour: perHour, per_minute: perMinute, retried, seconds } = total;
  const executed = sum(counts, ["completed", "partial", "failed"]);
  const living = sum(live, LIVING);
  const failed = counts.failed ?? 0;
  const others = ["cancelled", "partial"].filter((name) => counts[name]).map((name) => `${counts[name].toLocaleString("en")} ${name}`);
  const atOnce = seconds / ((Date.parse(until) - Date.parse(since)) / 1000);
  return [
    ["Ended", ended.toLocaleString("en"), others.length ? `of them ${others.join(", ")}` : ended ? "none of them cancelled" : "nothing in this window", "", ended ? runs([], { since, until }) : null],
    ["Per hour", rounded(perHour), `${rounded(perMinute)} a minute`, ""],
    ["Failed", rate === null ? "—" : percent(rate), rate === null ? "nothing was executed" : `${failed.toLocaleString("en")} of ${executed.toLocaleString("en")} executed`, failed ? "bad" : "", failed ? runs(["failed"], { since, until }) : null],
    ["Retried", retried.toLocaleString("en"), ended ? `${percent(retried / ended)} of what ended` : "nothing ended", ""],
    ["Time taken", seconds ? brief(seconds) : "—", seconds ? `${rounded(atOnce)} at once on average` : "by no run", ""],
    ["Not ended", living.toLocaleString("en"), "now: wait or run", "", living ? runs(LIVING) : null],
  ];
}

function figure([name, value, note, kind, address]) {
  const told = address ? element("a", { id: `figure-${name}`, href: address }, name) : name;
  return element("div", { class: `figure ${kind}` }, element("dt", {}, told), element("dd", {}, value, element("small", {}, note)));
}

function nothing({ live }) {
  const living = sum(live, LIVING);
  const advice = wanted.get("domain") || wanted.get("task")
    ? ["Nothing that fits ended in this window. Choose a longer one, or take a filter away; names are compared as they are."]
    : ["Nothing ended in this window. Choose a longer one, or submit a run: ", code("POST /api/v1/tasks"), ", ", code("carillon tour"), ", or see ", element("a", { id: "how", href: "/docs" }, "how"), "."];
  const waiting = living ? [" ", element("a", { id: "living", href: runs(LIVING) }, count(living, "run has", "runs have")), " not ended yet."] : [];
  return card("", "Tasks", "", empty(...advice, ...waiting));
}

form();
place("filters").addEventListener("input", (event) => changed(event.target.type === "radio" ? 0 : TYPING_MS));
place("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  changed(0);
});
const look = repeat(once);
suggest();
