"""Settings: how variables, `.env` and secrets' files are read, and what is said about faults."""

from pathlib import Path

import pytest

from exporter.settings import (
    SECRETS,
    Loaded,
    Settings,
    SettingsError,
    examine_settings,
    load_settings,
)

BOM = "\ufeff"


def examine(directory: Path | None = None, /, **environment: str) -> Loaded:
    variables = {name.upper(): value for name, value in environment.items()}
    env_file = directory / ".env" if directory else None
    return examine_settings(env_file=env_file, environment=variables)


def faults(**environment: str) -> list[str]:
    return [str(fault) for fault in examine(**environment).faults]


@pytest.mark.parametrize("empty", ["", " ", "\t \r", BOM, f"{BOM} "])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_unset(name: str, empty: str, tmp_path: Path) -> None:
    default = getattr(Settings(), name)
    assert getattr(examine(**{name: empty}).settings, name) == default
    (tmp_path / ".env").write_text(f'{name.upper()}="{empty}"\n{name.upper()}_FILE={empty}\n')
    loaded = examine(tmp_path, **{f"{name}_file": empty})
    assert not loaded.faults
    assert getattr(loaded.settings, name) == default


@pytest.mark.parametrize("name", sorted(SECRETS - {"ghl_public_keys"}))
@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%s\r\n", b" %s \n\n", b"%s"])
def test_what_editors_leave_around_a_secret_is_no_part_of_it(
    name: str, content: bytes, tmp_path: Path
) -> None:
    secret = {"database_url": "postgresql://h/d", "redis_url": "redis://h"}.get(name, "s3cret")
    path = tmp_path / "secret"
    path.write_bytes(content % secret.encode())
    # The empty variable beside it is unset.
    loaded = examine(**{f"{name}_file": str(path), name: ""})
    assert not loaded.faults
    assert getattr(loaded.settings, name).get_secret_value() == secret
    (tmp_path / ".env").write_bytes(
        b"\xef\xbb\xbf" + f"{name.upper()}={secret}\r\nKPI_INTERVAL=3\r\n".encode()
    )
    loaded = examine(tmp_path)
    assert getattr(loaded.settings, name).get_secret_value() == secret
    assert loaded.settings.kpi_interval == 3
    loaded = examine(**{name: f"{BOM}{secret}\r\n"})
    assert getattr(loaded.settings, name).get_secret_value() == secret


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("hush-hush".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("hush-hush".encode("utf-16-le"), "not UTF-8 text"),
        (b"hush-hush\xff", "not UTF-8 text"),
        (b"\xef\xbb\xbf \r\n", "file is empty"),
        (b"hush-hush" * 200_000, "larger than 1 MiB"),
    ],
)
def test_a_secret_file_that_is_no_text_is_a_fault(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    [line] = faults(**{f"{name}_file": str(path)})
    assert line.startswith(f"{name.upper()}_FILE: ")
    assert says in line
    assert "hush" not in line


def test_a_secret_in_the_place_of_a_file_name_is_not_shown() -> None:
    for secret in ("s3cret", "postgresql://u:s3cret@h/d", "s3cret" * 100, "/s3cret"):
        [line] = faults(database_url_file=secret)
        assert "s3cret" not in line


def test_the_lines_of_a_dotenv_file_are_literal(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GHL_WEBHOOK_SECRET=pa${HOME}rd\n")
    secret = examine(tmp_path, home="/root").settings.ghl_webhook_secret
    assert secret is not None
    assert secret.get_secret_value() == "pa${HOME}rd"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("KPI_INTERVAL=3\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        (b"# caf\xe9\nKPI_INTERVAL=3\n", "not UTF-8 text"),
        (b"KPI_INTERVAL=3\n\nmetrics token: s3cret\n", "line 3 is not NAME=value"),
        (b"METRICS_TOKEN='s3cret\n", "line 1 is not NAME=value"),
        (b"KPI_INTERVAL\n", "line 1 is not NAME=value"),
    ],
)
def test_a_dotenv_file_that_can_not_be_read_is_fatal(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(content)
    loaded = examine(tmp_path)
    text = "; ".join(str(fault) for fault in loaded.faults)
    assert says in text
    assert "s3cret" not in text
    assert loaded.fatal


def test_a_directory_named_dotenv_is_no_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert not examine(tmp_path).faults


def test_misspelt_names_are_reported_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "SPOOL_PTAH=/x\nMETRICS_TOKN=s3cret\nSPOOL_PATH_FILE=/x\nCOMPOSE_PROFILES=demo\n"
    )
    loaded = examine(tmp_path, ghl_webhok_secret="s3cret", ghl_colour="s3cret", databse_url="x")
    lines = [str(fault) for fault in loaded.faults]
    assert len(lines) == 3
    assert lines[0].startswith("SPOOL_PTAH: no such setting in ")
    assert lines[0].endswith("; did you mean SPOOL_PATH?")
    assert lines[1].endswith("; did you mean METRICS_TOKEN?")
    assert lines[2].endswith("; only secrets can come from files")
    assert not loaded.fatal
    assert loaded.notes == [
        f"{tmp_path / '.env'} has lines that are no settings: COMPOSE_PROFILES",
        "DATABSE_URL: no such setting; did you mean DATABASE_URL?",
        "GHL_COLOUR: no such setting",
        "GHL_WEBHOK_SECRET: no such setting; did you mean GHL_WEBHOOK_SECRET?",
    ]


def test_names_of_others_in_the_environment_are_left_alone() -> None:
    others = ("LOG_FILE", "DATABASE_HOST", "REDIS_PORT", "GHL_EXPORTER_PORT", "GHL_EXPORTER_KEY")
    assert not examine(**dict.fromkeys(others, "x")).notes


SPECIAL_URLS = [
    ("database_url", "postgresql://postgres:pa#ss-s3cret@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3cret?ret@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:12?s3cret=x@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3cret/c@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:12/s3cret@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3cret[c@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3]cret[@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3[cret]@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3cret@s3cret@127.0.0.1:5432/ghl"),
    ("database_url", "postgresql://postgres:s3cret\u2100@127.0.0.1:5432/ghl"),
    ("redis_url", "redis://:s3cret#cr@t@127.0.0.1:6379"),
    ("redis_url", "redis://:s3cret?x@127.0.0.1:6379"),
    ("redis_url", "redis://:s3cret/x@127.0.0.1:6379"),
    ("redis_url", "redis://:6?s3cret=x@127.0.0.1:6379"),
]


@pytest.mark.parametrize(("name", "url"), SPECIAL_URLS)
def test_special_characters_in_a_password_are_one_line_without_it(name: str, url: str) -> None:
    loaded = examine(**{name: url})
    [line] = [str(fault) for fault in loaded.faults]
    assert line.startswith(f"{name.upper()}: ")
    assert "percent-encode" in line
    assert "s3cret" not in line
    assert not loaded.fatal
    with pytest.raises(SettingsError) as caught:
        load_settings(**{name: url})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("database_url", "mysql://u:s3cret@h/d", "starts with postgresql://"),
        ("database_url", "postgresql:d", "starts with postgresql://"),
        ("database_url", "u:s3cret@h/d", "starts with postgresql://"),
        ("database_url", "postgresql://", "no host and no database"),
        ("database_url", "postgresql://u:s3cret@:5432/d", "host's name is missing"),
        ("database_url", "postgresql://a,,b/d", "host's name is missing"),
        ("database_url", "postgresql://h:99999/d", "port"),
        ("database_url", "postgresql://h:x/d", "port"),
        ("database_url", "postgresql://h/d?sslmode=s3cret", "sslmode is not one of"),
        ("database_url", "postgresql://h/d?channel_binding=require", "channel_binding"),
        ("database_url", "postgresql://h/d?s3cret", "options"),
        ("database_url", "postgresql://u:s3 cret@h/d", "white space"),
        ("redis_url", "http://:s3cret@h", "starts with redis://"),
        ("redis_url", "redis://", "name one host"),
        ("redis_url", "redis://:s3cret@:6379", "name one host"),
        ("redis_url", "redis://h:0", "port"),
        ("redis_url", "redis://h/cache", "number of a database"),
        ("redis_url", "unix://", "names no socket"),
        ("redis_url", "redis://h/0?ssl_cert_reqs=none", "rediss://"),
        ("redis_url", "rediss://h/0?ssl_cert_reqs=s3cret", "value of an option"),
        ("redis_url", "redis://h?socket_timeout=s3cret", "value of an option"),
        ("redis_url", "redis://h?decode_responses=true", "is none of"),
        ("redis_url", "redis://h?s3cret=true", "is none of"),
    ],
)
def test_a_url_that_can_not_be_used_says_why(name: str, url: str, says: str) -> None:
    [line] = faults(**{name: url})
    assert says in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgresql:///ghl"),
        ("database_url", "postgres://ghl@/ghl"),
        ("database_url", "postgresql:///ghl?host=/var/run/postgresql&user=me@server"),
        ("database_url", "postgresql://u:p%40%23%2F%3F%5B:x@h1:5432,h2:5433/d?sslmode=require"),
        ("database_url", "postgresql://u:p@[::1]:5432/d?application_name=x&search_path=ghl"),
        ("database_url", "postgresql://%2Fvar%2Frun%2Fpostgresql/d"),
        ("redis_url", "redis://:p%23@h:6379/1?socket_timeout=1"),
        ("redis_url", "rediss://u:p@h?ssl_cert_reqs=none"),
        ("redis_url", "redis://[::1]:6379"),
        ("redis_url", "unix:///run/redis.sock?db=1"),
    ],
)
def test_a_url_that_is_right_is_taken(name: str, url: str) -> None:
    loaded = examine(**{name: url})
    assert not loaded.faults
    assert getattr(loaded.settings, name).get_secret_value() == url


def test_every_fault_has_its_line_and_the_rest_is_read() -> None:
    loaded = examine(
        database_url="mysql://x",
        redis_url="redis://",
        spool_path="/",
        kpi_interval="inf",
        kpi_timeout="1e400",
        cors_origins="foo",
        time_zones="[" * 100_000,
        listen_address="h:1",
        metrics_address="h:1",
        log_level="loud",
        inbox_retention_days="99999999",
        database_writers="3",
    )
    assert {fault.variable for fault in loaded.faults} == {
        "DATABASE_URL",
        "REDIS_URL",
        "SPOOL_PATH",
        "KPI_INTERVAL",
        "KPI_TIMEOUT",
        "CORS_ORIGINS",
        "TIME_ZONES",
        "METRICS_ADDRESS",
        "LOG_LEVEL",
        "INBOX_RETENTION_DAYS",
    }
    assert "(it is 'loud')" in "".join(str(fault) for fault in loaded.faults)
    assert loaded.settings.database_writers == 3
    assert loaded.fatal


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("[::]:1", "127.0.0.1:1", True),
        ("localhost:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "10.0.0.1:1", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_addresses_that_can_not_both_be_bound_are_a_fault(
    one: str, other: str, conflict: bool
) -> None:
    assert bool(faults(listen_address=one, metrics_address=other)) is conflict


def test_origins_are_those_that_browsers_send() -> None:
    good = "https://app.example.com, http://localhost:3000,HTTPS://B.example"
    assert examine(cors_origins=good).settings.cors_origins == {
        "https://app.example.com",
        "http://localhost:3000",
        "https://b.example",
    }
    for wrong in ("*", "foo", "https://a.example/", "a.example", "https://a.example/x", "null"):
        assert faults(cors_origins=wrong), wrong


def test_a_list_can_be_empty_on_purpose() -> None:
    assert examine(automated_sources="[]").settings.automated_sources == frozenset()
    assert examine(automated_sources="").settings.automated_sources
