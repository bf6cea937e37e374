// The audit trail, page by page, and whether its chain holds.

import { read } from "./api.js";
import { button, complain, details, draw, empty, json, place, repeat } from "./parts.js";
import { count, element, moment } from "./shared.js";

const PAGE = 50;
const POLL_MS = 5000;
const FILTERS = { action: ["What was done", "run.cancelled"], actor: ["Who", "local"], subject: ["To what", "a run's id, a schedule, a key"], since: ["Since", ""], until: ["Until", ""] };
const MOMENTS = new Set(["since", "until"]);
const RUN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let filters = new URLSearchParams(location.search);
let cursors = [null];
let typing = null;

function form(actions) {
  place("filters").replaceChildren(
    ...Object.entries(FILTERS).map(([name, [title, example]]) => element("div", {}, element("label", { for: `by-${name}` }, title), name === "action" ? choice(actions) : element("input", { type: MOMENTS.has(name) ? "datetime-local" : "text", id: `by-${name}`, name, value: filters.get(name) ?? "", placeholder: example, spellcheck: "false", autocomplete: "off", maxlength: "200" }))),
    element("button", { type: "button", id: "clear", onclick: () => { place("filters").reset(); search(new URLSearchParams()); form(actions); place("by-action").focus(); } }, "Clear"));
}

function choice(actions) {
  const options = actions.map((name) => element("option", { value: name, selected: filters.get("action") === name ? "" : null }, name));
  return element("select", { id: "by-action", name: "action" }, element("option", { value: "" }, "anything"), ...options);
}

function search(wanted) {
  if (wanted.toString() === filters.toString()) return;
  filters = wanted;
  cursors = [null];
  history.replaceState(null, "", `${location.pathname}${filters.size ? `?${filters}` : ""}`);
  look();
}

async function once() {
  const asked = `${filters} ${cursors.length}`;
  // What is typed is of the reader's own clock.
  const typed = [...filters].map(([name, text]) => [name, MOMENTS.has(name) && !Number.isNaN(Date.parse(text)) ? new Date(text).toISOString() : text]);
  const page = new URLSearchParams([...typed, ["limit", String(PAGE)], ...(cursors.at(-1) ? [["cursor", cursors.at(-1)]] : [])]);
  const { data, detail, errors, status } = await read(`/api/v1/audit?${page}`);
  if (asked !== `${filters} ${cursors.length}`) return POLL_MS;
  complain(data ? "" : errors.map((fault) => `${fault.pointer} ${fault.detail}`).join("; ") || detail);
  if (!data) return status >= 500 ? POLL_MS : null;
  draw("found", [data, cursors.length], () => found(data));
  return cursors.length === 1 ? POLL_MS : null;
}

function found({ entries, next_cursor: next }) {
  const page = cursors.length;
  return [
    element("header", {}, element("h2", {}, "Entries"), element("span", { class: "soft" }, "newest first")),
    entries.length ? element("ul", { class: "rows" }, ...entries.map(entry)) : empty(filters.size ? "No entry fits. Names are compared as they are, so give them whole." : "Nothing was done yet that is recorded here."),
    page > 1 || next ? element("nav", { class: "pager", "aria-label": "Pages of entries" }, button("newer", "Newer", () => turn(cursors.slice(0, -1)), { disabled: page === 1 ? "" : null }), element("span", { class: "soft number" }, `Page ${page}`), button("older", "Older", () => turn([...cursors, next]), { disabled: next ? null : "" })) : null,
  ];
}

function turn(to) {
  cursors = to;
  look();
}

function entry(one) {
  const subject = one.action.startsWith("run.") && RUN.test(one.subject) ? element("a", { id: `subject-${one.seq}`, class: "mono", href: `/runs/${one.subject}` }, one.subject) : element("span", { class: "mono" }, one.subject);
  return element("li", { class: "member" }, element("span", { class: "soft number seq" }, one.seq),
    element("span", { class: "grow" },
      element("span", { class: "line" }, element("span", { class: "strong" }, one.action), " ", subject),
      one.reason ? element("span", { class: "reason" }, one.reason) : null,
      details(`more-${one.seq}`, "Details", element("dl", { class: "facts" },
        element("div", {}, element("dt", {}, "From where"), element("dd", {}, one.origin)),
        element("div", {}, element("dt", {}, "Hash"), element("dd", { class: "mono" }, one.hash)),
        element("div", {}, element("dt", {}, "Hash of the entry before"), element("dd", { class: "mono" }, one.previous))),
        Object.keys(one.details).length ? json(one.details, `details-${one.seq}`) : null)),
    element("span", { class: "right" }, element("span", { class: "strong" }, one.actor), element("span", { class: "line sub" }, moment(one.at))));
}

async function verify() {
  const { data, detail } = await read("/api/v1/audit/verify");
  const again = () => button("verify", "Check again", verify);
  if (!data) return draw("verdict", detail, () => element("p", { class: "notice" }, detail, " ", again()));
  const { holds, entries, hash, broken } = data;
  draw("verdict", [data, Date.now()], () => element("p", { class: `verdict ${holds ? "good" : "bad"}` },
    element("span", { class: `state ${holds ? "completed" : "failed"}` }, holds ? "the chain holds" : "the chain is broken"),
    element("span", { class: "grow" }, holds ? `${count(entries, "entry", "entries")}, each as it was written. The newest has the hash ` : `Entry ${broken.seq}: ${broken.fault}. ${count(entries, "entry holds", "entries hold")} before it, up to the hash `, element("code", { title: "Noted elsewhere, it proves later that these are the same entries." }, hash)),
    again()));
}

place("filters").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search(new URLSearchParams([...new FormData(place("filters"))].map(([name, text]) => [name, text.trim()]).filter(([, text]) => text))), 300);
});
place("filters").addEventListener("submit", (event) => event.preventDefault());
const actions = JSON.parse(place("filters").dataset.actions);
form(actions);
const look = repeat(once);
verify();
