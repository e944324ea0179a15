"""Read the values of settings out of their texts; an error says what is wrong with the value."""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from pydantic import SecretStr

from exporter.domain.grade import GRADE_PARTS, GradePart
from exporter.domain.stages import MAPPABLE_STAGES
from exporter.settings.public_keys import UnusableKey, split_pem
from exporter.settings.urls import check_database_url, check_redis_url

_EVERYWHERE = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - compared, not bound
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_HERE = frozenset({"127.0.0.1", "::1", "localhost"})


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("is not JSON that can be read: too deep") from None


def names(value: object) -> object:
    """Read `a,b`, or a JSON array of texts; `[]` is none at all."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return parse_json(text)
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def json_object(value: object) -> object:
    """Read a JSON object."""
    if not isinstance(value, str):
        return value
    return parse_json(value) if value.strip() else {}


def known_zones(value: dict[str, str]) -> dict[str, str]:
    """Refuse what is no IANA time zone."""
    unknown = sorted(set(value.values()) - available_timezones())
    if unknown:
        raise ValueError(f"no IANA time zone: {', '.join(unknown)}")
    return value


def currency_codes(value: dict[str, str]) -> dict[str, str]:
    """Refuse what is no ISO 4217 code."""
    wrong = sorted(code for code in value.values() if not re.fullmatch("[A-Z]{3}", code))
    if wrong:
        raise ValueError(f"no ISO 4217 code: {', '.join(wrong)}")
    return value


def known_stages(value: dict[str, str]) -> dict[str, str]:
    """Refuse what is no stage that can be mapped."""
    unknown = sorted(set(value.values()) - set(MAPPABLE_STAGES))
    if unknown:
        raise ValueError(
            f"no stage that can be mapped: {', '.join(unknown)} "
            f"(one of {', '.join(MAPPABLE_STAGES)})"
        )
    return value


def known_parts(value: dict[str, GradePart]) -> dict[str, GradePart]:
    """Refuse parts that the grade does not have, and a grade without parts."""
    unknown = sorted(set(value) - set(GRADE_PARTS))
    if unknown or not value:
        raise ValueError(
            f"no part of the grade: {', '.join(unknown)} (one of {', '.join(GRADE_PARTS)})"
        )
    return value


def usable_keys(value: str) -> str:
    """Refuse text without public keys that can be read."""
    try:
        split_pem(value)
    except UnusableKey as error:
        raise ValueError(str(error)) from None
    return value


def origins(value: frozenset[str]) -> frozenset[str]:
    """Refuse what no browser would send as the origin of a page."""
    wrong = sorted(origin for origin in value if not _ORIGIN.fullmatch(origin.lower()))
    if wrong:
        raise ValueError(f"no origin: {', '.join(wrong)} (https://app.example.com, without a path)")
    return frozenset(origin.lower() for origin in value)


def networks(value: frozenset[str]) -> frozenset[str]:
    """Refuse what is neither an address nor a network."""
    for text in sorted(value):
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network") from None
    return value


def address(value: str | None) -> str | None:
    """Refuse what is not host:port."""
    if value is not None:
        host_and_port(value)
    return value


def host_and_port(value: str) -> tuple[str, int]:
    """Return an address in its two parts, an IPv6 host without its brackets. Raises ValueError."""
    host, separator, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    wrong = not separator or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535
    if wrong or not re.fullmatch(r"[A-Za-z0-9.:_%-]{1,253}", host):
        raise ValueError("is not host:port, 127.0.0.1:12105 say")
    return host, int(port)


def overlap(one: str, other: str) -> bool:
    """Tell whether one socket can't listen on an address while another listens on the other."""
    (host, port), (other_host, other_port) = host_and_port(one), host_and_port(other)
    hosts = {host.lower(), other_host.lower()}
    same = len(hosts) == 1 or hosts & _EVERYWHERE or hosts <= _HERE - {"::1"}
    return bool(port == other_port != 0 and same)


def database_url(value: SecretStr) -> SecretStr:
    """Refuse a URL that PostgreSQL's driver could not use."""
    check_database_url(value.get_secret_value())
    return value


def redis_url(value: SecretStr) -> SecretStr:
    """Refuse a URL that the Redis client could not use."""
    check_redis_url(value.get_secret_value())
    return value


def file_path(value: Path) -> Path:
    """Refuse a path that names no file, or an existing directory."""
    if not value.name or value.name == "..":
        raise ValueError("names no file")
    try:
        is_directory = value.is_dir()
    except (OSError, ValueError) as error:
        raise ValueError(f"can't be used: {error}") from None
    if is_directory:
        raise ValueError("is a directory; name a file in it")
    return value


def lower(value: frozenset[str]) -> frozenset[str]:
    """Return texts in lower case."""
    return frozenset(item.lower() for item in value)
