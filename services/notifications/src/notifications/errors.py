"""What can go wrong in a delivery. Each error says what to do next.

```
TransientError
├── MailDeferredError         the mail server asked to come back later, or did not answer
└── WebhookUnavailableError   the receiver did not take the webhook now
PermanentError
├── UnsafeHeaderError         a subject or address holds what would forge a header
├── DamagedArtefactError      a stored file is missing or not the one that was rendered
├── MailRefusedError          the mail server refused for good
├── WebhookRefusedError       the receiver refused for good, or answered with a redirect
└── ForbiddenAddressError     the webhook's host leads to an address nobody outside may reach
```
"""

from __future__ import annotations

from carillon.errors import PermanentError, TransientError


class MailDeferredError(TransientError):
    """The mail server could not take the message now."""


class WebhookUnavailableError(TransientError):
    """The receiver could not take the webhook now."""


class UnsafeHeaderError(PermanentError):
    """A subject or address would break out of its header line; mend the text and send it again."""


class DamagedArtefactError(PermanentError):
    """A file in storage is missing or differs from what was rendered; render the report again."""


class MailRefusedError(PermanentError):
    """The mail server refused the message for good; its answer says why."""


class WebhookRefusedError(PermanentError):
    """The receiver refused the webhook for good; mend the endpoint or its address, then replay."""


class ForbiddenAddressError(PermanentError):
    """The webhook's host leads to a private address; set NOTIFICATIONS_WEBHOOK_ALLOW_PRIVATE=true if that is meant."""
