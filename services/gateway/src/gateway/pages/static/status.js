// The status page: the live stream, or polling where the stream is not to be had, drawn section by section.

import { askWithKey } from "./api.js";
import { act } from "./dialogs.js";
import { follow } from "./live.js";
import { button, code, details, draw, empty, left, line, mix, place, progressBar, rows } from "./parts.js";
import { element, moment, runLink, state, took } from "./shared.js";

function show(data) {
  draw("figures", figures(data), (list) => list.map(figure));
  draw("running", data.running, running);
  draw("failed", data.failed, failed);
  draw("recent", data.recent, recent);
  draw("schedules", data.schedules, schedules);
  draw("domains", [data.domains, data.holds], domains);
  draw("workers", data.workers, workers);
  draw("events", data.events, events);
}

function figures(data) {
  const sum = (...names) => data.domains.reduce((total, domain) => total + names.reduce((n, name) => n + (domain.counts[name] ?? 0), 0), 0);
  const slots = data.workers.reduce((n, worker) => n + worker.concurrency, 0);
  const failures = sum("failed");
  return [
    ["Running", sum("running"), `of ${slots} slots`, sum("running") ? "busy" : "", "/runs?state=running"],
    ["Waiting", sum("queued", "pending", "retrying"), "queued or to be retried", "", "/runs?state=queued&state=pending&state=retrying"],
    ["Completed", sum("completed"), "in 24 hours", "", "/runs?state=completed"],
    ["Failed", failures, "in 24 hours", failures ? "bad" : "", "/dead-letters"],
    ["Workers", data.workers.length, `in ${new Set(data.workers.map((worker) => worker.domain)).size} domains`, ""],
    ["Transport", data.transport === "rabbitmq" ? "RabbitMQ" : "PostgreSQL", "carries the runs", "word"],
  ];
}

function figure([name, value, note, kind, address]) {
  const shown = typeof value === "number" ? value.toLocaleString("en") : value;
  const told = address ? element("a", { id: `figure-${name}`, href: address }, name) : name;
  return element("div", { class: `figure ${kind}` }, element("dt", {}, told), element("dd", { class: kind === "word" ? "word" : null }, shown, element("small", {}, note)));
}

function running(list) {
  if (!list.length) return empty("Nothing runs right now. ", code("carillon tour"), " sets the whole chain going.");
  return rows(list.map((run) => element("li", {},
    element("span", { class: "grow" }, line({}, runLink(run.id, run.task)), line({ class: "sub" }, told(run))),
    run.progress && run.progress.fraction !== null ? meter(run) : null,
    element("span", { class: "right soft" }, took(run)))));
}

function told(run) {
  const parts = [run.progress?.stage, run.progress?.message].filter(Boolean);
  return parts.length ? parts.join(" · ") : `by ${run.actor}${run.attempt > 1 ? ` · attempt ${run.attempt}` : ""}`;
}

function meter(run) {
  const [bar, percent] = progressBar(run.progress, `Progress of ${run.task}`);
  return element("span", { class: "meter" }, bar, line({ class: "sub" }, `${percent} %`, left(run.progress) ? " · " : "", left(run.progress)));
}

function failed(list) {
  if (!list.length) return empty("Nothing failed in the last 24 hours.");
  return rows(list.map((run) => element("li", {},
    element("span", { class: "grow" }, line({}, runLink(run.id, run.task)), line({ class: "sub fault", title: run.error ?? "" }, run.error ?? "no reason was recorded")),
    element("span", { class: "right" }, state(run.state), line({ class: "sub" }, run.state === "retrying" ? moment(run.run_at, "in") : moment(run.finished_at))))));
}

function recent(list) {
  if (!list.length) return empty("No run yet. Submit one: ", code("POST /api/v1/tasks"), ", or see ", element("a", { href: "/docs" }, "how"), ".");
  const head = ["Task", "State", "By", "Took", "Accepted"].map((name, index) => element("th", { scope: "col", class: [null, null, "optional", "right", "right optional"][index] }, name));
  return element("div", { class: "table" }, element("table", {}, element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...list.map((run) => element("tr", {},
      element("td", { class: "clip" }, runLink(run.id, run.task)),
      element("td", {}, state(run.state)),
      element("td", { class: "sub optional by", title: run.actor }, run.actor.replace(/^event /, "")),
      element("td", { class: "right soft" }, took(run)),
      element("td", { class: "right soft optional" }, moment(run.created_at)))))));
}

function every(schedule) {
  if (schedule.cron) return `${schedule.cron} ${schedule.timezone}`;
  const s = schedule.interval_seconds;
  return s % 3600 === 0 ? `every ${s / 3600} h` : s % 60 === 0 ? `every ${s / 60} min` : `every ${s} s`;
}

function schedules(list) {
  if (!list.length) return empty("No schedule yet: services bring theirs when they start, with ", code("carillon serve"), ".");
  return rows(list.map((schedule) => element("li", {},
    element("span", { class: "grow" }, line({ class: "strong" }, schedule.name), line({ class: "sub mono", title: schedule.event_type }, every(schedule))),
    element("span", { class: "right" },
      schedule.paused ? state("paused") : schedule.next_run_time ? moment(schedule.next_run_time, "in") : element("span", { class: "soft" }, "no next fire"),
      line({ class: "sub" }, schedule.paused ? `by ${schedule.paused_by ?? "somebody"}` : schedule.last_run_time ? "last " : "never fired", !schedule.paused && schedule.last_run_time ? moment(schedule.last_run_time) : "")),
    element("button", { id: `steer-${schedule.name}`, "aria-label": `${schedule.paused ? "Resume" : "Pause"} ${schedule.name}`, onclick: () => steer(schedule) }, schedule.paused ? "Resume" : "Pause"))));
}

async function steer({ name, paused }) {
  const done = await act({
    title: `${paused ? "Resume" : "Pause"} ${name}`,
    text: paused ? "It fires again from now on." : "It does not fire until it is resumed. Fires that come due meanwhile are left out.",
    verb: paused ? "Resume" : "Pause",
    path: `/api/v1/tasks/scheduled/${encodeURIComponent(name)}/${paused ? "resume" : "pause"}`,
  });
  if (done) await poll();
}

const ORDER = ["completed", "partial", "running", "retrying", "paused", "queued", "pending", "cancelled", "failed"];

function domains([list, holds]) {
  if (!list.length) return empty("No domain has registered. Start one: ", code("carillon serve backup"), ".");
  return rows(list.flatMap((domain) => {
    const parts = ORDER.filter((name) => domain.counts[name]);
    const words = parts.map((name) => `${domain.counts[name].toLocaleString("en")} ${name}`).join(" · ") || "no runs in 24 hours";
    const hold = holds.find((one) => one.name === domain.name);
    const tasks = holds.filter((one) => one.name.startsWith(`${domain.name}.`));
    return [element("li", {}, element("span", { class: "grow" },
      line({}, element("a", { id: `domain-${domain.name}`, class: "strong", href: `/runs?domain=${encodeURIComponent(domain.name)}` }, domain.name), hold ? [" ", state("paused")] : null),
      mix(domain.counts, parts), line({ class: "sub", title: words }, words), hold ? heldBy(hold) : null, limits(domain)),
    holdButton(domain.name, Boolean(hold))),
    ...tasks.map((task) => element("li", { class: "under" }, element("span", { class: "grow" }, line({}, element("span", { class: "strong" }, task.name), " ", state("paused")), heldBy(task)), holdButton(task.name, true)))];
  }));
}

function limits(domain) {
  const told = [domain.limit === null ? null : ["all of it", `at most ${domain.limit.toLocaleString("en")} at once`], ...domain.limited_tasks.map((task) => [task.name, task.limits.told])].filter(Boolean);
  return told.length ? details(`limits-${domain.name}`, "Limits", rows(told.map(([name, words]) => element("li", {}, element("span", { class: "grow" }, line({ class: "strong" }, name), element("span", { class: "sub held" }, words)))))) : null;
}

function heldBy(hold) {
  return element("span", { class: "sub held" }, `by ${hold.actor}, `, moment(hold.since), hold.reason ? `: ${hold.reason}` : "");
}

function holdButton(name, held) {
  return button(`hold-${name}`, held ? "Resume" : "Pause", () => hold(name, held), { "aria-label": `${held ? "Resume" : "Pause"} ${name}` });
}

async function hold(name, held) {
  const kind = name.includes(".") ? "tasks" : "domains";
  const done = await act({
    title: held ? `Resume ${name}` : `Pause ${name}`,
    text: held ? "Its runs that wait start again." : "Nothing of it starts until it is resumed. What executes goes on, and what is submitted waits.",
    verb: held ? "Resume" : "Pause",
    path: `/api/v1/${kind}/${encodeURIComponent(name)}/${held ? "resume" : "pause"}`,
  });
  if (done) await poll();
}

function workers(list) {
  if (!list.length) return empty("No worker is alive, so nothing runs. Start one: ", code("carillon serve backup"), ".");
  return rows(list.map((worker) => element("li", {},
    element("span", { class: "grow" }, line({ class: "strong" }, worker.domain), line({ class: "sub" }, `${worker.host} · pid ${worker.pid}`)),
    element("span", { class: "right" }, line({}, `${worker.running} / ${worker.concurrency}`), line({ class: "sub" }, "heard ", moment(worker.heartbeat_at, "ago", 30))))));
}

function events(list) {
  if (!list.length) return empty("No event yet. ", code("carillon tour"), " says the first, or post a CloudEvent to ", code("/api/v1/events"), ".");
  return rows(list.map((event) => element("li", {},
    element("span", { class: "grow" }, line({ class: "strong mono", title: event.type }, event.type), line({ class: "sub" }, `${event.source}${event.subject ? ` · ${event.subject}` : ""}`)),
    element("span", { class: "right sub" }, event.run_id ? element("a", { href: `/runs/${event.run_id}` }, "run") : event.actor, line({}, moment(event.recorded_at))))));
}

function complain(text) {
  place("notice").textContent = text;
  place("notice").hidden = !text;
}

function pulse(name, text) {
  place("pulse").dataset.state = name;
  place("pulse").textContent = text;
}

async function poll() {
  const answer = await askWithKey("/api/v1/overview");
  if (!answer) return pulse("away", "needs a key");
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) return complain(told.detail ?? `HTTP ${answer.status}`);
  complain("");
  show(told);
}

follow({
  picture: (data) => {
    pulse("live", "live");
    complain("");
    show(data);
  },
  away: ({ detail }) => {
    pulse("away", "PostgreSQL is away");
    complain(detail);
  },
  poll: async () => {
    pulse("polling", "polling");
    await poll();
  },
  lost: () => {
    pulse("away", "gateway is away");
    complain("The gateway does not answer; this picture is old. It is tried again by itself.");
  },
});
