"""Every setting, in one model: read from the environment, `.env` and files, checked at start.

A secret can also come from a file: `GHL_WEBHOOK_SECRET_FILE=/run/secrets/x` stands for
`GHL_WEBHOOK_SECRET`. What is wrong is a `Fault`, one line that names the variable.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
)

from exporter.domain.grade import GRADE_PARTS, GradePart
from exporter.domain.stages import MAPPABLE_STAGES
from exporter.settings import values
from exporter.settings.faults import Fault, SettingsError, validate
from exporter.settings.public_keys import GHL_PUBLIC_KEY
from exporter.settings.variables import read_variables

__all__ = ["Settings", "SettingsError", "examine_settings", "load_settings"]

ONE_MEBIBYTE = 1024 * 1024
_MANY_BYTES = 1 << 50
_ONE_DAY = 86_400
_MANY = 100_000_000

Names = Annotated[frozenset[str], BeforeValidator(values.names)]
Texts = Annotated[dict[str, str], BeforeValidator(values.json_object)]
GradeParts = Annotated[
    dict[str, GradePart], BeforeValidator(values.json_object), AfterValidator(values.known_parts)
]
Address = Annotated[str, AfterValidator(values.address)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(values.database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(values.redis_url)]

SECRETS = frozenset(
    {"database_url", "redis_url", "ghl_public_keys", "ghl_webhook_secret", "metrics_token"}
)

# Settings that the service can do without: it starts, takes webhooks, and says what is wrong.
FALLBACKS = frozenset({"database_url", "redis_url", "spool_path"})


class Settings(BaseModel):
    """The service's settings. Field names in capitals are the environment variables."""

    # Values stay out of pydantic's texts: some are secrets.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    _faults: tuple[Fault, ...] = PrivateAttr(())
    _notes: tuple[str, ...] = PrivateAttr(())

    # Where things are
    database_url: DatabaseUrl = Field(
        SecretStr("postgresql://localhost/ghl_exporter"),
        description="PostgreSQL, as a libpq URL. Several hosts may be given; the writable one "
        "is used.",
    )
    redis_url: RedisUrl | None = Field(
        None, description="Redis or Valkey, as a URL. It is a cache: without it all is right."
    )
    listen_address: Address = Field(
        "127.0.0.1:12105",
        description="host:port to listen on. A socket inherited from systemd "
        "(LISTEN_FDS) is used instead where there is one.",
    )
    spool_path: Annotated[Path, AfterValidator(values.file_path)] = Field(
        Path("ghl-exporter-spool.sqlite3"),
        description="SQLite file that keeps webhooks while PostgreSQL is away. Put it on a disk "
        "that outlives the process; one file for each copy of the service.",
    )
    spool_max_bytes: int = Field(
        1024 * ONE_MEBIBYTE,
        ge=ONE_MEBIBYTE,
        le=_MANY_BYTES,
        description="Size in bytes beyond which the spool takes nothing more (senders get 429).",
    )

    # Who may send
    ghl_public_keys: Annotated[str, AfterValidator(values.usable_keys)] = Field(
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
        le=_MANY,
        description="Requests that a key may make in a minute, over all copies where Redis is "
        "there. Above: 429. A request may hold 1,000 tracking calls.",
    )
    dashboard_cache_ttl: int = Field(
        15,
        ge=0,
        le=3600,
        description="Seconds that answers of the API are kept in Redis. 0: never.",
    )
    cors_origins: Annotated[Names, AfterValidator(values.origins)] = Field(
        frozenset(),
        description="Origins of web pages that may call the API from a browser, separated by "
        "commas: `https://app.example.com`. Empty: none.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Bearer token that `/metrics` asks for. Empty: none is asked for.",
    )
    metrics_address: Address | None = Field(
        None,
        description="host:port where `/metrics` is answered, and nothing else; it is then gone "
        "from `LISTEN_ADDRESS`.",
    )
    audit_retention_days: int = Field(
        365, ge=1, le=36_500, description="Days after which entries of the audit table go."
    )
    max_body_bytes: int = Field(
        ONE_MEBIBYTE,
        ge=1024,
        le=_MANY_BYTES,
        description="Largest body in bytes, after inflating. Above: 413.",
    )
    max_buffered_bytes: int = Field(
        64 * ONE_MEBIBYTE,
        ge=ONE_MEBIBYTE,
        le=_MANY_BYTES,
        description="Bytes of bodies held in memory at one time. Above: 429. A quarter is kept for "
        "bodies up to 64 KiB.",
    )
    client_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of `MAX_BUFFERED_BYTES`, and of connections, that one client's address "
        "may hold (of IPv6: one /64 network). 1: no such limit.",
    )
    max_connections: int = Field(
        4096,
        ge=8,
        le=4096,
        description="Connections that may be open at one time; fewer where the limit of file "
        "descriptors (`ulimit -n`) leaves fewer beside those of database, spool and logs. Beyond: "
        "the oldest idle one is closed; where all are busy, new ones wait.",
    )
    trusted_proxies: Annotated[Names, AfterValidator(values.networks)] = Field(
        frozenset(),
        description="Addresses or networks of reverse proxies, separated by commas: "
        "`10.0.0.5,10.1.0.0/16`. What they send is their client's, whose address is taken from "
        "`X-Forwarded-For`; from anybody else that header is ignored. Their connections have no "
        "limit by address. Empty: none.",
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
        le=_ONE_DAY,
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
    time_zones: Annotated[Texts, AfterValidator(values.known_zones)] = Field(
        default_factory=dict,
        description="JSON object, location id → IANA time zone of its reporting days; `*` for the "
        'rest. Default: UTC. Example: `{"*": "America/New_York"}`.',
    )
    location_names: Texts = Field(
        default_factory=dict,
        description="JSON object, location id → what boards call it. Default: its id.",
    )
    currencies: Annotated[Texts, AfterValidator(values.currency_codes)] = Field(
        default_factory=dict,
        description="JSON object, location id → ISO 4217 code of the currency of its values, for "
        'boards; `*` for the rest. Nothing is converted. Example: `{"*": "USD"}`.',
    )
    pipeline_stages: Annotated[Texts, AfterValidator(values.known_stages)] = Field(
        default_factory=dict,
        description="JSON object, GHL's pipelineStageId → stage that a contact reaches with it "
        f"({', '.join(MAPPABLE_STAGES)}).",
    )
    automated_users: Names = Field(
        frozenset(), description="GHL user ids whose messages are no human answer."
    )
    automated_sources: Annotated[Names, AfterValidator(values.lower)] = Field(
        frozenset({"workflow", "campaign", "bot"}),
        description="Values of a message's `source` that are no human answer (case is ignored). "
        "`[]`: none.",
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
        le=1000 * _ONE_DAY,
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
    grade_parts: GradeParts = Field(
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
    kpi_interval: float = Field(
        15.0, gt=0, le=_ONE_DAY, description="Seconds between two KPI refreshes."
    )
    kpi_timeout: float = Field(
        10.0,
        gt=0,
        le=_ONE_DAY,
        description="Seconds that one KPI's query may take, unless its file says less.",
    )
    projection_batch_size: int = Field(
        500, ge=1, le=10_000, description="Most events in one projection transaction."
    )
    location_series_limit: int = Field(
        1000,
        ge=1,
        le=_MANY,
        description="Locations that get series of their own; what is beyond is counted in "
        "`ghl_exporter_label_values_cut_total`, and as `other` in live metrics.",
    )
    agent_series_limit: int = Field(
        100,
        ge=1,
        le=_MANY,
        description="Agents with series of their own in each location and window, the best by "
        "revenue; those left out are counted in `ghl_exporter_label_values_cut_total`.",
    )
    kpi_series_limit: int = Field(
        250_000,
        ge=1000,
        le=_MANY,
        description="Series of KPIs on `/metrics`, of all locations together. Beyond: the agents "
        "of the lowest rank get none, then the locations that came last; both are counted in "
        "`ghl_exporter_label_values_cut_total`. 250,000 series are about 30 MB.",
    )
    inbox_retention_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
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

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong with the settings, and did not keep the service from starting."""
        return self._faults

    @property
    def notes(self) -> tuple[str, ...]:
        """What is strange about the variables, and no fault: names that are no settings."""
        return self._notes

    def fault(self, name: str) -> str | None:
        """Return why a setting has no usable value; None where it has one."""
        return next((one.problem for one in self._faults if one.setting == name), None)

    def zone(self, location_id: str) -> ZoneInfo:
        """Return the time zone of a location's reporting days."""
        return ZoneInfo(self.time_zones.get(location_id, self.time_zones.get("*", "UTC")))


@dataclass(frozen=True)
class Loaded:
    """Settings with their faults. A setting with a fault has its default."""

    settings: Settings
    faults: list[Fault]
    notes: list[str]

    @property
    def fatal(self) -> bool:
        """Tell whether the service can't run with these settings."""
        return any(one.fatal and one.setting not in FALLBACKS for one in self.faults)


def examine_settings(
    *,
    env_file: str | Path | None = ".env",
    environment: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """Read the settings, and find everything that is wrong with them. Never raises."""
    found = read_variables(Settings.model_fields, SECRETS, env_file, environment)
    given: dict[str, Any] = {**found.values, **(overrides or {})}
    faults = [fault for fault in found.faults if fault.setting not in (overrides or {})]
    settings, wrong = validate(Settings, given, SECRETS)
    faults += wrong
    faults += _conflicts(settings, {fault.setting for fault in faults})
    settings._faults, settings._notes = tuple(faults), tuple(found.notes)
    return Loaded(settings, faults, found.notes)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raise SettingsError with one line for each fault.

    `overrides` are nearer than the environment, and that than the file, which `_env_file` names.
    """
    env_file = overrides.pop("_env_file", ".env")
    loaded = examine_settings(env_file=env_file, overrides=overrides)
    if loaded.faults:
        raise SettingsError([str(fault) for fault in loaded.faults])
    return loaded.settings


def _conflicts(settings: Settings, wrong: set[str | None]) -> list[Fault]:
    """Find settings that are right by themselves, and wrong together."""
    address = settings.metrics_address
    if address is None or wrong & {"metrics_address", "listen_address"}:
        return []
    if values.overlap(address, settings.listen_address):
        text = f"is the same as LISTEN_ADDRESS ({settings.listen_address}); choose another port"
        return [Fault("METRICS_ADDRESS", text, "metrics_address")]
    return []
