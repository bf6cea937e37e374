"""How a command ends: its exit code, and the one sentence when something is wrong.

Where the fault lies says the code: 2 in what was typed, as for an option that there is not; 78 in a setting; 1 in the
state of things, so that the same command may do at another time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydantic import ValidationError

from carillon.errors import CarillonError, ConfigurationError, InvalidArgumentsError

OK = 0
FAILED = 1
#: What Typer ends with for an option that it does not know.
MISTYPED = 2
#: From sysexits.h: starting again cannot help, a setting has to be changed.
MISCONFIGURED = 78


class MistypedError(InvalidArgumentsError):
    """What was typed does not fit; the message is a whole sentence."""


def in_one_sentence(command: Callable[[], int]) -> int:
    """Run `command`; an error of Carillon's own becomes its sentence and an exit code.

    The arguments that an `InvalidArgumentsError` is about are those of the command.
    """
    try:
        return command()
    except (CarillonError, ValidationError, OSError) as error:
        code, sentence = _told(error)
        complain(sentence)
        return code
    except KeyboardInterrupt:
        return 130


def _told(error: CarillonError | ValidationError | OSError) -> tuple[int, str]:
    """Whose fault an error is, as the exit code, and its sentence."""
    if isinstance(error, OSError):
        return FAILED, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    if isinstance(error, ValidationError):
        return MISCONFIGURED, settings_sentence(error)
    if isinstance(error, InvalidArgumentsError):
        return MISTYPED, f"{str(error).removesuffix('.')}."
    return MISCONFIGURED if isinstance(error, ConfigurationError) else FAILED, str(error)


def complain(sentence: str) -> None:
    """Say what is wrong, where errors go."""
    sys.stderr.write(f"carillon: {sentence}\n")


def settings_sentence(error: ValidationError) -> str:
    """Name the settings that do not fit, without their values: one of them may be a secret."""
    faults = [f"{'.'.join(str(part) for part in fault['loc']) or 'they'}: {fault['msg']}" for fault in error.errors()]
    return f"Settings of {error.title} do not fit ({'; '.join(faults)})."
