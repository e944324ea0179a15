"""What `validate` checks: a service, the key to ask it with, and what else is known of it."""

from dataclasses import dataclass

from nacl.signing import SigningKey
from pydantic import SecretStr

from exporter.settings import Settings


class ValidateError(RuntimeError):
    """The checks can't be made; the text says why, without a secret."""


@dataclass(frozen=True)
class Target:
    """A service. `own`: it was started for the checks, and goes with all its data at their end."""

    url: str
    api_key: str
    own: bool
    signing_key: SigningKey | None = None
    """What webhooks are signed with; of a service of our own only."""
    settings: Settings | None = None
    """Of its database, where that can be reached."""
    metrics_token: SecretStr | None = None
    """What `/metrics` asks for, where it asks."""
