// A group of messages that nobody could read: as text, or as bytes where they are none; mended and redelivered, or discarded.

import { read, send } from "./api.js";
import { act, field } from "./dialogs.js";
import { button, card, complain, details, json } from "./parts.js";
import { count, element, moment } from "./shared.js";

const messages = (number) => count(number, "message", "messages");
const LINE_BYTES = 16;

export const deadMessages = {
  head: ([first], seen, group) => ({
    title: first.reason,
    where: element("span", { class: "mono" }, first.queue),
    buttons: [
      button("discard", "Discard all", () => discard(group, seen.count), { class: "danger" }),
      button("redeliver", "Redeliver all", () => redeliverAll(group, seen.count), { class: "primary" }),
    ],
  }),
  list: (members, seen, look) => card("", "Messages", seen.count > members.length ? `the newest ${members.length} of ${seen.count.toLocaleString("en")}` : "newest first",
    element("ul", { class: "rows" }, ...members.map((letter) => member(letter, look)))),
};

function member(letter, look) {
  const cut = letter.size > shownBytes(letter) ? `, of which the first ${shownBytes(letter).toLocaleString("en")} are shown` : "";
  return element("li", { class: "member" }, element("span", { class: "grow" },
    element("span", { class: "strong" }, letter.reason),
    element("span", { class: "line sub" }, "received ", moment(letter.received_at), ` · ${letter.size.toLocaleString("en")} bytes${cut}${letter.cut ? " · cut when it was kept" : ""}${letter.text === null ? " · no text, so in hexadecimal" : ""}`),
    element("pre", { class: letter.text === null ? "body hex" : "body", id: `body-${letter.id}`, tabindex: "0", "aria-label": "Body" }, letter.text ?? hex(letter.base64)),
    Object.keys(letter.headers).length ? details(`headers-${letter.id}`, "Headers", json(letter.headers, `headers-json-${letter.id}`)) : null),
  element("span", { class: "acts" }, button(`redeliver-${letter.id}`, letter.text === null ? "Redeliver" : "Edit and redeliver", () => redeliver(letter.id, look))));
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const shownBytes = (letter) => (letter.text === null ? bytesOf(letter.base64).length : new TextEncoder().encode(letter.text).length);

export function hex(base64) {
  const bytes = bytesOf(base64);
  const lines = [];
  for (let at = 0; at < bytes.length; at += LINE_BYTES) {
    const part = [...bytes.slice(at, at + LINE_BYTES)];
    const codes = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(3 * LINE_BYTES);
    lines.push(`${at.toString(16).padStart(6, "0")}  ${codes} ${part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("")}`);
  }
  return lines.join("\n");
}

async function redeliver(id, look) {
  const { data: letter, detail } = await read(`/api/v1/dead-letters/messages/${encodeURIComponent(id)}`);
  if (!letter) return complain(detail);
  const text = letter.text === null ? null : element("textarea", { rows: "12", class: "mono", spellcheck: "false" }, letter.text);
  const done = await act({
    title: "Redeliver this message",
    text: text ? "Mend it here; it goes to its queue as it stands below." : "It is no text, so it goes to its queue as it is. Mend the service that reads it first.",
    verb: "Redeliver",
    parts: text ? [field("body", "Body", text)] : [],
    path: `/api/v1/dead-letters/messages/${encodeURIComponent(id)}/redeliver`,
    body: () => (text && text.value !== letter.text.replaceAll("\r\n", "\n") ? { body: text.value } : {}),
  });
  if (done) complain(`Handed to ${done.queue} again; if it cannot be read there either, it comes back.`, "done");
  look();
}

async function redeliverAll({ fingerprint, look }, total) {
  const path = `/api/v1/dead-letters/${encodeURIComponent(fingerprint)}/redeliver`;
  let done = await act({ title: `Redeliver ${messages(total)}`, text: "They go to their queue as they are, oldest first. Mend what reads them first, and try one of them: what cannot be read comes back.", verb: `Redeliver ${messages(total)}`, path });
  let sum = done?.count ?? 0;
  while (done?.count && done.remaining) {
    done = (await send(path, { until: done.until }))?.data;
    sum += done?.count ?? 0;
  }
  if (done) complain(`${messages(sum)} redelivered; what cannot be read comes back.${done.cut ? ` ${messages(done.cut)} were cut when they were kept, and need a body each.` : ""}`, "done");
  look();
}

async function discard({ fingerprint, look }, total) {
  const done = await act({ title: `Discard ${messages(total)}`, text: "They are thrown away for good; the audit trail says how many.", verb: `Discard ${messages(total)}`, danger: true, path: `/api/v1/dead-letters/${encodeURIComponent(fingerprint)}/discard` });
  if (done) complain(`${messages(done.count)} discarded.`, "done");
  look();
}
