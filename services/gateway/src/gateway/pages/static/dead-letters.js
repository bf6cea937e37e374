// What needs a person: failed runs and unreadable messages by what went wrong, or the members of one such group.

import { read } from "./api.js";
import { deadMessages } from "./dead-messages.js";
import { deadRuns } from "./dead-runs.js";
import { card, draw, empty, line, repeat, rows } from "./parts.js";
import { count, element, moment } from "./shared.js";

const POLL_MS = 3000;
const GROUPS = 100;
const MEMBERS = 50;
const [, , fingerprint] = location.pathname.split("/").map(decodeURIComponent);
const task = new URLSearchParams(location.search).get("task");
let seen = null;

async function groups() {
  const { data, detail } = await read(`/api/v1/dead-letters?limit=${GROUPS}`);
  if (!data) return refuse(detail);
  const most = Math.max(1, ...[...data.runs, ...data.messages].map((group) => group.count));
  draw("letters", data, () => [
    data.more ? element("p", { class: "notice" }, `There are more groups than these; the newest ${GROUPS} of each kind are shown. Dealing with them makes room for the others.`) : null,
    card("", "Failed runs", "that nobody has dealt with, by what went wrong", data.runs.length ? rows(data.runs.map((group) => summary(group, group.task, most))) : empty("Nothing to do. A run that fails for good waits here until it is run again, settled or deleted.")),
    card("", "Unreadable messages", "that no service could take from its queue", data.messages.length ? rows(data.messages.map((group) => summary(group, group.queue, most))) : empty("Nothing to do. A message that is no run or event ends here instead of blocking its queue; mend what sends it, and redeliver it.")),
  ]);
  return POLL_MS;
}

function summary(group, where, most) {
  const address = `/dead-letters/${encodeURIComponent(group.fingerprint)}${group.task ? `?task=${encodeURIComponent(group.task)}` : ""}`;
  return element("li", { class: "group" },
    element("span", { class: "grow" },
      line({ title: group.error ?? "" }, element("a", { id: `group-${group.fingerprint}-${where}`, class: "strong", href: address }, group.error || group.type || "without a reason")),
      line({ class: "sub" }, element("span", { class: "mono" }, where), group.type ? ` · ${group.type}` : "")),
    element("span", { class: "meter" }, element("progress", { class: "bad", max: String(most), value: String(group.count), "aria-hidden": "true" }),
      line({ class: "sub" }, "first ", moment(group.first_at), " · last ", moment(group.last_at))),
    element("span", { class: "right count number" }, group.count.toLocaleString("en")));
}

async function members() {
  const { data, detail, status } = await read(`/api/v1/dead-letters/${encodeURIComponent(fingerprint)}?limit=${MEMBERS}${task ? `&task=${encodeURIComponent(task)}` : ""}`);
  if (!data) return status === 404 ? nothingLeft() : refuse(detail);
  const listed = (await read(`/api/v1/dead-letters?limit=${GROUPS}`)).data;
  const kind = data.runs.length ? "runs" : "messages";
  const known = listed?.[kind].find((group) => group.fingerprint === fingerprint && (!task || group.task === task));
  seen = { kind, count: known?.count ?? data[kind].length, first: known?.first_at, last: known?.last_at };
  const make = kind === "runs" ? deadRuns : deadMessages;
  draw("head", [data[kind][0], seen], () => head(make.head(data[kind], seen, { fingerprint, task, look })));
  draw("letters", data, () => make.list(data[kind], seen, look));
  return POLL_MS;
}

const crumbs = () => element("p", { class: "crumbs" }, element("a", { id: "up", href: "/dead-letters" }, "Dead letters"), " / group");

function head({ title, where, buttons }) {
  return [crumbs(), element("div", { class: "title" }, element("h1", { class: "fault-title" }, title), element("div", { class: "steer" }, ...buttons)),
    element("p", { class: "soft" }, where, ` · ${count(seen.count, seen.kind.slice(0, -1), seen.kind)}`, seen.first ? [" · first ", moment(seen.first), " · last ", moment(seen.last)] : null)];
}

function nothingLeft() {
  draw("head", "none", () => [crumbs(), element("h1", {}, "Nothing is left of this group")]);
  draw("letters", "none", () => [card("", "Dealt with", null, empty("Its runs were run again, settled or deleted, or its messages redelivered or discarded. What fails again comes back under ", element("a", { href: "/dead-letters" }, "dead letters"), "; who did what is in the ", element("a", { href: "/audit" }, "audit trail"), "."))]);
  return null;
}

function refuse(detail) {
  draw("letters", detail, () => element("p", { class: "notice" }, detail));
  return POLL_MS * 2;
}

const look = repeat(fingerprint ? members : groups);
