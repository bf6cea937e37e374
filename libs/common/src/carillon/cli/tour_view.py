"""What the tour shows: a table that grows while the chain does, and the links worth following."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from carillon.cli.chain import Chain, Step

MARKS = {"completed": ("done", "green"), "failed": ("FAIL", "bold red"), "running": ("runs", "yellow")}


def picture(chain: Chain, seconds: float) -> RenderableType:
    """The chain as it is now."""
    table = Table(box=None, pad_edge=False, caption=f"{seconds:.0f} s", caption_justify="left", show_header=False)
    for _ in range(4):
        table.add_column(no_wrap=True)
    for step in chain.steps:
        table.add_row(_mark(step), _name(step), _duration(step), _said(step))
    return table


def goodbye(chain: Chain, url: str, seconds: float) -> Text:
    """Where to look at what was made."""
    text = Text(f"\n{len(chain.steps)} runs of {_domains(chain)} domains, joined by events only, in {seconds:.1f} s.\n")
    for step in chain.steps:
        text.append(f"  {step.task:<34} {step.page}\n", style=f"link {step.page}")
    for file in chain.artefacts():
        link = f"{url}/files/{file['key']}"
        text.append(f"  report as {file['format']:<24} {link}\n", style=f"link {link}")
    for destination in chain.deliveries():
        text.append(f"  sent to {'':<26} {destination}\n")
    text.append(f"  everything, live {'':<17} {url}/", style=f"link {url}/")
    return text


def _domains(chain: Chain) -> int:
    return len({step.task.partition(".")[0] for step in chain.steps})


def _mark(step: Step) -> Text:
    return Text.assemble(MARKS.get(step.state, (step.state[:4], "dim")))


def _name(step: Step) -> Text:
    return Text(f"{'  ' * step.depth}{step.task}", style=f"link {step.page}")


def _duration(step: Step) -> Text:
    return Text("" if step.seconds is None else f"{step.seconds:.2f} s", style="dim")


def _said(step: Step) -> Text:
    said = ", ".join(event_type for event_type, _ in step.said)
    return Text(f"said {said}" if said else "", style="cyan")
