"""Every setting, in one model: read from the environment and `.env`, checked at start.

A secret can also come from a file: `GHL_WEBHOOK_SECRET_FILE=/run/secrets/x` stands for
`GHL_WEBHOOK_SECRET`. Errors name the variable.
"""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from exporter.kpis.grade import GRADE_PARTS, GradePart
from exporter.receiver.signature import GHL_PUBLIC_KEY, UnusableKey, split_pem
from exporter.secret_files import SecretFiles, SettingsError
from exporter.stages import MAPPABLE_STAGES

ONE_MEBIBYTE = 1024 * 1024


Names = Annotated[frozenset[str], NoDecode]

SECRETS = frozenset(
    {"database_url", "redis_url", "ghl_public_keys", "ghl_webhook_secret", "metrics_token"}
)


class Settings(BaseSettings):
    """The service's settings. Field names in capitals are the environment variables."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    # Where things are
    database_url: SecretStr = Field(
        SecretStr("postgresql://localhost/ghl_exporter"),
        description="PostgreSQL, as a libpq URL. Several hosts may be given; the writable one "
        "is used.",
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis or Valkey, as a URL. It is a cache: without it all is right."
    )
    listen_address: str = Field(
        "127.0.0.1:12105",
        description="host:port to listen on. A socket inherited from systemd "
        "(LISTEN_FDS) is used instead where there is one.",
    )
    spool_path: Path = Field(
        Path("ghl-exporter-spool.sqlite3"),
        description="SQLite file that keeps webhooks while PostgreSQL is away. Put it on a disk "
        "that outlives the process; one file for each copy of the service.",
    )
    spool_max_bytes: int = Field(
        1024 * ONE_MEBIBYTE,
        ge=ONE_MEBIBYTE,
        description="Size in bytes beyond which the spool takes nothing more (senders get 429).",
    )

    # Who may send
    ghl_public_keys: str = Field(
        GHL_PUBLIC_KEY,
        description="PEM blocks, one after another, of the Ed25519 keys that sign "
        "`X-GHL-Signature` (RSA blocks count for `X-WH-Signature`). Default: GHL's own key.",
    )
    accept_rsa_signatures: bool = Field(
        False,
        description="Also accept GHL's retired `X-WH-Signature` (RSA), where a webhook carries no "
        "`X-GHL-Signature`. Needs an RSA key among `GHL_PUBLIC_KEYS`.",
    )
    ghl_webhook_secret: SecretStr | None = Field(
        None,
        description="What workflow webhooks must send in `X-Webhook-Secret`. Without it "
        "`/webhooks/workflow` is closed.",
    )
    ghl_location_id: Names = Field(
        frozenset(),
        description="Location ids to report on, separated by commas. Empty: all. Webhooks of "
        "others are stored, and reported on after a `rebuild` with them in the list.",
    )

    # What a request may cost
    api_requests_per_minute: int = Field(
        1200,
        ge=1,
        description="Requests that a key may make in a minute, over all copies where Redis is "
        "there. Above: 429. A request may hold 1,000 tracking calls.",
    )
    dashboard_cache_ttl: int = Field(
        15,
        ge=0,
        le=3600,
        description="Seconds that answers of the API are kept in Redis. 0: never.",
    )
    cors_origins: Names = Field(
        frozenset(),
        description="Origins of web pages that may call the API from a browser, separated by "
        "commas: `https://app.example.com`. Empty: none.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Bearer token that `/metrics` asks for. Empty: none is asked for.",
    )
    metrics_address: str | None = Field(
        None,
        description="host:port where `/metrics` is answered, and nothing else; it is then gone "
        "from `LISTEN_ADDRESS`.",
    )
    audit_retention_days: int = Field(
        365, ge=1, le=36_500, description="Days after which entries of the audit table go."
    )
    max_body_bytes: int = Field(
        ONE_MEBIBYTE, ge=1024, description="Largest body in bytes, after inflating. Above: 413."
    )
    max_buffered_bytes: int = Field(
        64 * ONE_MEBIBYTE,
        ge=ONE_MEBIBYTE,
        description="Bytes of bodies held in memory at one time. Above: 429. A quarter is kept for "
        "bodies up to 64 KiB.",
    )
    client_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of `MAX_BUFFERED_BYTES` that one client's address may hold (of IPv6: "
        "one /64 network). 1: no such limit.",
    )
    trusted_proxies: Names = Field(
        frozenset(),
        description="Addresses or networks of reverse proxies, separated by commas: "
        "`10.0.0.5,10.1.0.0/16`. What they send is their client's, whose address is taken from "
        "`X-Forwarded-For`; from anybody else that header is ignored. Empty: none.",
    )
    answer_within_ms: int = Field(
        1800,
        ge=300,
        le=10_000,
        description="Milliseconds in which every request is answered: up to 45 % for its body, "
        "then PostgreSQL until 70 %, then the spool.",
    )
    keepalive_timeout: float = Field(
        75.0,
        gt=0,
        description="Seconds after which a connection is closed that is idle, or that has not "
        "finished its headers. Behind a proxy: more than the proxy keeps its own.",
    )
    metrics_batch_size: int = Field(
        500, ge=1, le=10_000, description="Most events in one commit to the inbox."
    )
    database_writers: int = Field(
        2, ge=1, le=16, description="Connections that commit to the inbox."
    )
    database_pool_size: int = Field(
        4, ge=2, le=64, description="Connections for KPIs, and as many again for the API."
    )

    # What the business means
    time_zones: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON object, location id → IANA time zone of its reporting days; `*` for the "
        'rest. Default: UTC. Example: `{"*": "America/New_York"}`.',
    )
    location_names: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON object, location id → what boards call it. Default: its id.",
    )
    currencies: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON object, location id → ISO 4217 code of the currency of its values, for "
        'boards; `*` for the rest. Nothing is converted. Example: `{"*": "USD"}`.',
    )
    pipeline_stages: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON object, GHL's pipelineStageId → stage that a contact reaches with it "
        f"({', '.join(MAPPABLE_STAGES)}).",
    )
    automated_users: Names = Field(
        frozenset(), description="GHL user ids whose messages are no human answer."
    )
    automated_sources: Names = Field(
        frozenset({"workflow", "campaign", "bot"}),
        description="Values of a message's `source` that are no human answer (case is ignored).",
    )
    showing_calendars: Names = Field(
        frozenset(),
        description="GHL calendar ids whose appointments are property showings. Empty: all.",
    )

    attribution_days: int = Field(
        90,
        ge=1,
        le=3650,
        description="Days of 24 h before a deal's close in which the AI's part makes it "
        "AI-assisted.",
    )
    webhook_processing_timeout: int = Field(
        10_000,
        ge=1,
        description="Milliseconds after which a webhook that the platform started to process, and "
        "never completed, counts as failed.",
    )
    target_conversion: float = Field(
        0.20, gt=0, description="Conversion ratio at which an agent has full marks for it."
    )
    target_deal_size: float = Field(
        500_000, gt=0, description="Average deal size, in the location's currency, for full marks."
    )
    target_response_seconds: float = Field(
        3600, gt=0, description="Median first response, in seconds, at which the marks are gone."
    )
    grade_parts: Annotated[dict[str, GradePart], NoDecode] = Field(
        default_factory=lambda: dict(GRADE_PARTS),
        description="JSON object: the parts of the performance grade, each with its `weight` and "
        "`points` (value, score), between which straight lines run. Parts: "
        f"{', '.join(GRADE_PARTS)}.",
    )
    grade_coverage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the weights whose parts must have a value for a grade to be given.",
    )

    # How often
    kpi_interval: float = Field(15.0, gt=0, description="Seconds between two KPI refreshes.")
    kpi_timeout: float = Field(
        10.0, gt=0, description="Seconds that one KPI's query may take, unless its file says less."
    )
    projection_batch_size: int = Field(
        500, ge=1, le=10_000, description="Most events in one projection transaction."
    )
    location_series_limit: int = Field(
        1000,
        ge=1,
        description="Locations that get series of their own; what is beyond is counted in "
        "`ghl_exporter_label_values_cut_total`, and as `other` in live metrics.",
    )
    agent_series_limit: int = Field(
        100,
        ge=1,
        description="Agents with series of their own in each location and window, the best by "
        "revenue; those left out are counted in `ghl_exporter_label_values_cut_total`.",
    )
    kpi_series_limit: int = Field(
        250_000,
        ge=1000,
        description="Series of KPIs on `/metrics`, of all locations together. Beyond: the agents "
        "of the lowest rank get none, then the locations that came last; both are counted in "
        "`ghl_exporter_label_values_cut_total`. 250,000 series are about 30 MB.",
    )
    inbox_retention_days: int | None = Field(
        None,
        ge=1,
        description="Days after which stored bodies may be dropped, by whole months. Empty: never. "
        "A `rebuild` can't recompute what was dropped, and says so.",
    )

    # How it talks
    log_format: Literal["auto", "json", "plain"] = Field(
        "auto", description="`json` lines, `plain` for people, `auto`: plain in a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged. A line for each webhook is `info`."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del file_secret_settings
        return (
            init_settings,
            env_settings,
            SecretFiles(settings_cls, dotenv_settings, SECRETS),
            dotenv_settings,
        )

    @field_validator(
        "ghl_location_id",
        "automated_users",
        "automated_sources",
        "showing_calendars",
        "cors_origins",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _names(cls, value: object) -> object:
        """Read `a,b` or a JSON array of texts."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text.startswith("["):
            return json.loads(text)
        return frozenset(part.strip() for part in text.split(",") if part.strip())

    @field_validator(
        "time_zones",
        "location_names",
        "currencies",
        "pipeline_stages",
        "grade_parts",
        mode="before",
    )
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.strip() else {}
        except json.JSONDecodeError as error:
            raise ValueError(f"is not JSON: {error}") from None

    @field_validator(
        "inbox_retention_days",
        "redis_url",
        "ghl_webhook_secret",
        "metrics_token",
        "metrics_address",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: frozenset[str]) -> frozenset[str]:
        for text in sorted(value):
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is no address and no network") from None
        return value

    @field_validator("automated_sources")
    @classmethod
    def _lower(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(item.lower() for item in value)

    @field_validator("time_zones")
    @classmethod
    def _known_zones(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - available_timezones())
        if unknown:
            raise ValueError(f"no IANA time zone: {', '.join(unknown)}")
        return value

    @field_validator("currencies")
    @classmethod
    def _currency_codes(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = sorted(code for code in value.values() if not re.fullmatch("[A-Z]{3}", code))
        if wrong:
            raise ValueError(f"no ISO 4217 code: {', '.join(wrong)}")
        return value

    @field_validator("pipeline_stages")
    @classmethod
    def _known_stages(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - set(MAPPABLE_STAGES))
        if unknown:
            raise ValueError(
                f"no stage that can be mapped: {', '.join(unknown)} "
                f"(one of {', '.join(MAPPABLE_STAGES)})"
            )
        return value

    @field_validator("grade_parts")
    @classmethod
    def _known_parts(cls, value: dict[str, GradePart]) -> dict[str, GradePart]:
        unknown = sorted(set(value) - set(GRADE_PARTS))
        if unknown or not value:
            raise ValueError(
                f"no part of the grade: {', '.join(unknown)} (one of {', '.join(GRADE_PARTS)})"
            )
        return value

    @field_validator("ghl_public_keys")
    @classmethod
    def _usable_keys(cls, value: str) -> str:
        try:
            split_pem(value)
        except UnusableKey as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("listen_address", "metrics_address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, separator, port = value.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError("is not host:port")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("is not a URL that starts with postgresql://")
        return value

    def zone(self, location_id: str) -> ZoneInfo:
        """Return the time zone of a location's reporting days."""
        return ZoneInfo(self.time_zones.get(location_id, self.time_zones.get("*", "UTC")))


def host_and_port(address: str) -> tuple[str, int]:
    """Return an address in its two parts; an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def load_settings(**overrides: object) -> Settings:
    """Read the settings; raise SettingsError with one line for each variable that is wrong."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise SettingsError(problems) from None
