"""How a command ends: its exit code, and the one sentence when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydantic import ValidationError

from carillon.errors import CarillonError, ConfigurationError

OK = 0
FAILED = 1
#: From sysexits.h: starting again cannot help, a setting has to be changed.
MISCONFIGURED = 78


def in_one_sentence(command: Callable[[], int]) -> int:
    """Run `command`; an error of Carillon's own becomes its sentence and an exit code."""
    try:
        return command()
    except ValidationError as error:
        complain(settings_sentence(error))
        return MISCONFIGURED
    except ConfigurationError as error:
        complain(str(error))
        return MISCONFIGURED
    except CarillonError as error:
        complain(str(error))
        return FAILED
    except OSError as error:
        complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        return FAILED
    except KeyboardInterrupt:
        return 130


def complain(sentence: str) -> None:
    """Say what is wrong, where errors go."""
    sys.stderr.write(f"carillon: {sentence}\n")


def settings_sentence(error: ValidationError) -> str:
    """Name the settings that do not fit, without their values: one of them may be a secret."""
    faults = [f"{'.'.join(str(part) for part in fault['loc']) or 'they'}: {fault['msg']}" for fault in error.errors()]
    return f"Settings of {error.title} do not fit ({'; '.join(faults)})."
