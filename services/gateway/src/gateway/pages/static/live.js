// The live stream of the overview, for ever; polling where the stream is not to be had.

import { ask } from "./api.js";

const POLL_MS = 3000;
const rest = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Calls `picture` with what the stream shows, `away` with why it shows nothing new, `poll` where there is no stream,
// and `lost` when the gateway does not answer.
export async function follow({ picture, away, poll, lost }) {
  for (;;) {
    try {
      if (document.hidden || !(await stream(picture, away))) await poll();
    } catch {
      lost();
    }
    await rest(POLL_MS);
  }
}

async function stream(picture, away) {
  const answer = await ask("/api/v1/live");
  if (!answer.ok || !answer.body) return false;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    const frames = (begun + value).split("\n\n");
    begun = frames.pop();
    for (const frame of frames) take(frame, { overview: picture, away });
  }
}

function take(frame, takers) {
  const lines = frame.split("\n").filter((text) => !text.startsWith(":"));
  const fields = Object.fromEntries(lines.map((text) => [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 2)]));
  takers[fields.event]?.(JSON.parse(fields.data));
}
