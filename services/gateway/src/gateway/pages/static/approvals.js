// What workflows ask people, those first that wait longest, page by page.

import { read } from "./api.js";
import { decisionButtons } from "./decide.js";
import { button, complain, draw, empty, place, repeat, rows } from "./parts.js";
import { element, moment, runLink, state } from "./shared.js";

const PAGE = 50;
const POLL_MS = 3000;
let cursors = [null];

async function once() {
  const asked = cursors.length;
  const cursor = cursors.at(-1) ? `&cursor=${encodeURIComponent(cursors.at(-1))}` : "";
  const { data, detail } = await read(`/api/v1/approvals?limit=${PAGE}${cursor}`);
  if (asked !== cursors.length) return POLL_MS;
  if (!data) complain(detail);
  else if (!place("notice").classList.contains("done")) complain("");
  if (data) draw("found", [data, asked], () => found(data));
  return POLL_MS;
}

function found({ approvals, next_cursor: next }) {
  const page = cursors.length;
  return [
    element("header", {}, element("h2", {}, "Open"), element("span", { class: "soft" }, approvals.length ? "those first that wait longest" : "")),
    approvals.length ? rows(approvals.map(open)) : empty(page > 1 ? "Nothing is left on this page." : "Nobody has to decide anything. A workflow that asks for an approval, or for a repair of what failed for good, waits here."),
    page > 1 || next ? element("nav", { class: "pager", "aria-label": "Pages of approvals" }, button("earlier", "Longer ago", () => turn(cursors.slice(0, -1)), { disabled: page === 1 ? "" : null }), element("span", { class: "soft number" }, `Page ${page}`), button("later", "More recent", () => turn([...cursors, next]), { disabled: next ? null : "" })) : null,
  ];
}

function turn(to) {
  cursors = to;
  look();
}

function open(row) {
  const labels = Object.entries(row.labels).map(([name, value]) => `${name}: ${value}`).join(", ");
  return element("li", { class: "member" },
    element("span", { class: "grow" },
      element("span", { class: "reason strong" }, row.question),
      element("span", { class: "reason sub" }, runLink(row.workflow_id, row.task), ` · step ${row.seq} · asked `, moment(row.asked_at), row.due_at ? [" · given up ", moment(row.due_at, "in")] : null, labels ? ` · ${labels}` : null),
      row.state === "paused" ? element("span", { class: "reason sub" }, state("paused"), " goes on when the workflow is resumed") : null),
    element("span", { class: "acts" }, ...decisionButtons(row, () => { complain("It was decided, and the workflow goes on.", "done"); look(); })));
}

const look = repeat(once);
