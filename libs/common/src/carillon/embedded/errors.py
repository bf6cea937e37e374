"""What can go wrong with a server of our own; each message is one sentence for the person at the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carillon.errors import CarillonError

if TYPE_CHECKING:
    from pathlib import Path

    from carillon.embedded.process import Child


class EmbeddedServerError(CarillonError):
    """A server of our own could not be started or stopped; the sentence says what to do."""


class PortTakenError(EmbeddedServerError):
    """Another program took the port between our look and our start; another port will do."""


#: Words in a server's log, and the sentence a person needs instead.
CAUSES = {
    "no space left on device": "the disk is full; free some space and start again",
    "cannot allocate memory": "the machine has too little free memory",
    "could not map anonymous shared memory": "the machine has too little free memory",
}


def explain(child: Child | None, name: str, log_path: Path) -> EmbeddedServerError:
    """Turn the end of a server's log into one sentence."""
    text = child.log_text() if child is not None else ""
    lowered = text.lower()
    if "address already in use" in lowered:
        return PortTakenError(f"{name} could not start because another program uses its port; start again.")
    for words, cause in CAUSES.items():
        if words in lowered:
            return EmbeddedServerError(f"{name} could not start because {cause}.")
    if "error while loading shared libraries:" in lowered:
        library = lowered.split("error while loading shared libraries:", 1)[1].split(":", 1)[0].strip()
        return EmbeddedServerError(f"{name} needs the system library {library}, which is missing; install it.")
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    return EmbeddedServerError(f"{name} did not start: {last} (its whole log: {log_path}).")
