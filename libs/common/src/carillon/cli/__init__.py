"""The command `carillon`: start everything, run one service or write a new one, migrate, examine, watch one event."""


def main() -> None:
    """Run the command line."""
    # A service is `python -m carillon.cli.serve` and need not carry the command line in its memory.
    from carillon.cli.commands import app  # noqa: PLC0415

    app()
