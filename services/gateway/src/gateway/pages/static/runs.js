// The search of runs: filters, page by page, and acting on all that fit.

import { read } from "./api.js";
import { ACTS, preview } from "./many.js";
import { button, complain, draw, empty, line, place, repeat } from "./parts.js";
import { count, element, moment, runLink, state, STATES, took } from "./shared.js";
import { suggest } from "./suggest.js";

const POLL_MS = 3000;
const PAGE = 25;
const TYPING_MS = 300;
// What the form asks for; what else the address says is shown as something that can be taken away.
const FIELDS = {
  task: ["Task", { placeholder: "billing.send_invoice", list: "known-task" }],
  domain: ["Domain", { placeholder: "billing", list: "known-domain" }],
  label: ["Label", { placeholder: "customer:acme" }],
  arg: ["Argument", { placeholder: "order:17, customer.id:3" }],
  since: ["Accepted from", { type: "datetime-local" }],
  until: ["Accepted until", { type: "datetime-local" }],
  longer: ["Took at least, seconds", { type: "number", min: "0", step: "any", placeholder: "60" }],
  worker: ["Worker", { placeholder: "its id" }],
};
const LISTS = new Set(["state", "label", "arg"]);
const NUMBERS = new Set(["longer", "shorter"]);
const MOMENTS = new Set(["since", "until"]);

// What the form and the address say; the cursors of the pages before this one, the last of them is this one's.
let filters = new URLSearchParams(location.search);
let cursors = [null];

const query = () => new URLSearchParams([...filters].map(([name, value]) => [name, MOMENTS.has(name) && !Number.isNaN(Date.parse(value)) ? new Date(value).toISOString() : value]));

// The same for the body of a selection, where what may be said several times is a list.
const chosen = () => Object.fromEntries([...new Set(query().keys())].map((name) => [name, LISTS.has(name) ? query().getAll(name) : NUMBERS.has(name) ? Number(query().get(name)) : query().get(name)]));

function form() {
  const others = [...filters].filter(([name, value]) => name !== "state" && !(name in FIELDS && filters.get(name) === value));
  const fields = Object.entries(FIELDS).map(([name, [title, more]]) => element("div", {}, element("label", { for: `by-${name}` }, title),
    element("input", { id: `by-${name}`, name, value: filters.get(name) ?? "", spellcheck: "false", autocomplete: "off", maxlength: "200", ...more }), more.list ? element("datalist", { id: more.list }) : null));
  const states = STATES.map((name) => chip("state", name, name, filters.getAll("state").includes(name)));
  place("filters").replaceChildren(...fields, element("fieldset", {}, element("legend", {}, "State"), ...states, ...others.map(([name, value]) => chip(name, value, `${name}: ${value}`, true)),
    element("button", { type: "button", id: "clear", onclick: clear }, "Clear")));
}

const chip = (name, value, text, checked) => element("label", { class: "chip" }, element("input", { type: "checkbox", name, value, checked: checked ? "" : null }), element("span", {}, text));

let typing = null;

function changed(pause) {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const given = [...new FormData(place("filters"))].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
    search(new URLSearchParams(given));
  }, pause);
}

function clear() {
  search(new URLSearchParams());
  form();
  suggest();
  place("by-task").focus();
}

function search(wanted) {
  if (wanted.toString() === filters.toString()) return;
  filters = wanted;
  cursors = [null];
  complain("");
  history.replaceState(null, "", `${location.pathname}${filters.size ? `?${filters}` : ""}`);
  look();
}

async function once() {
  const asked = `${query()} ${cursors.length}`;
  const page = new URLSearchParams([...query(), ["limit", String(PAGE)], ...(cursors.at(-1) ? [["cursor", cursors.at(-1)]] : [])]);
  const { data, detail, errors, status } = await read(`/api/v1/runs?${page}`);
  if (asked !== `${query()} ${cursors.length}`) return POLL_MS;
  if (!data) {
    draw("found", [detail, errors], () => element("p", { class: "empty first fault" }, errors.length ? errors.map((fault) => `${fault.pointer} ${fault.detail}`).join("; ") : detail));
    return status >= 500 ? POLL_MS : null;
  }
  draw("found", [data, cursors.length], () => found(data));
  return cursors.length === 1 ? POLL_MS : null;
}

function found({ runs, next_cursor: next }) {
  const page = cursors.length;
  return [
    element("header", {}, element("h2", {}, "Runs"), element("span", { class: "soft" }, "newest first"), element("div", { class: "end acts", role: "group", "aria-label": "All that fit" }, element("span", { class: "soft" }, "All that fit:"), ...Object.entries(ACTS).map(([name, { verb }]) => button(`all-${name}`, verb, () => many(name))))),
    runs.length ? table(runs) : empty(filters.size ? "No run fits. Take a filter away, or look whether the names are whole: they are compared as they are." : "No run yet. Submit one, or let carillon tour do it."),
    page > 1 || next ? element("nav", { class: "pager", "aria-label": "Pages of runs" }, button("newer", "Newer", () => turn(cursors.slice(0, -1)), { disabled: page === 1 ? "" : null }), element("span", { class: "soft number" }, `Page ${page}`), button("older", "Older", () => turn([...cursors, next]), { disabled: next ? null : "" })) : null,
  ];
}

function turn(to) {
  cursors = to;
  look();
}

const HEADS = [["Task"], ["State"], ["By", "optional"], ["Took", "right"], ["Accepted", "right optional"]];

function table(runs) {
  return element("div", { class: "table" }, element("table", {}, element("thead", {}, element("tr", {}, ...HEADS.map(([name, kind]) => element("th", { scope: "col", class: kind ?? null }, name)))), element("tbody", {}, ...runs.map(row))));
}

function row(run) {
  const labels = Object.entries(run.labels).map(([name, value]) => `${name}: ${value}`).join(" · ");
  const note = run.error ? line({ class: "sub fault", title: run.error }, run.error) : labels ? line({ class: "sub", title: labels }, labels) : null;
  const link = runLink(run.id, run.task);
  link.id = `run-${run.id}`;
  return element("tr", {}, element("td", { class: "clip" }, link, note),
    element("td", {}, state(run.state), run.progress && run.progress.fraction !== null ? element("span", { class: "sub number" }, ` ${Math.floor(100 * run.progress.fraction)} %`) : null),
    element("td", { class: "sub optional by", title: run.actor }, run.actor), element("td", { class: "right soft" }, took(run)), element("td", { class: "right soft optional" }, moment(run.created_at)));
}

async function many(action) {
  if (!filters.size) return complain("Say first which runs are meant: set at least one filter.");
  complain("");
  const { done, detail } = await preview(action, chosen());
  if (detail) complain(detail);
  if (done) complain(`${count(done, "run was", "runs were")} ${ACTS[action].past}.`, "done");
  look();
}

form();
place("filters").addEventListener("input", (event) => changed(event.target.type === "checkbox" ? 0 : TYPING_MS));
place("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  changed(0);
});
const look = repeat(once);
suggest();
