// Deciding about what a workflow asks: approving or refusing, and of what failed for good whether it is tried again.

import { act } from "./dialogs.js";
import { button } from "./parts.js";
import { element } from "./shared.js";

const WORDS = {
  approval: { yes: "Approve", no: "Refuse", text: "The workflow goes on with your answer, and is told why." },
  repair: { yes: "Try again", no: "Done by hand", text: "It failed for good. Have it tried again once its cause is mended, or say that it was done by hand: the workflow then goes on without." },
};

// The buttons for an open step; `decided` is called when one of them did something.
export function decisionButtons(step, decided) {
  const words = WORDS[step.kind];
  const one = (approve) => button(`decide-${step.workflow_id}-${step.seq}-${approve ? "yes" : "no"}`, approve ? words.yes : words.no, () => decide(step, approve, decided), { class: approve ? "primary" : "danger", "aria-label": `${approve ? words.yes : words.no}: step ${step.seq}` });
  return [one(true), one(false)];
}

async function decide(step, approve, decided) {
  const words = WORDS[step.kind];
  const done = await act({
    title: approve ? words.yes : words.no,
    text: words.text,
    parts: [element("p", { class: "strong" }, step.question)],
    verb: approve ? words.yes : words.no,
    danger: !approve,
    path: `/api/v1/workflows/${encodeURIComponent(step.workflow_id)}/steps/${step.seq}/decision`,
    body: () => ({ approve }),
  });
  if (done) decided();
}
