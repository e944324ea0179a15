"""Run every command block of the pages as it stands, or list it here with the reason.

The pages about a server are followed from top to bottom, in a machine of their own with systemd.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import promql_parser
import pytest

from exporter.demo.servers import EmbeddedPostgres
from tests.doc_blocks import BLOCKS, ROOT, Block
from tests.machine import Machine, Shell, why_none
from tests.promtool import RULE_FILES, needs_promtool, promtool
from tests.stack import check
from tests.test_backup import client_programs
from tests.test_commands import command
from tests.wheelhouse import python_fits, write_wheels

# In this order, by one shell.
ON_A_MACHINE = ("docs/running.md", "docs/client.md", "clients/python/README.md", "README.md")
# What is no command: a drawing, and what `--help` says, which `make docs` writes.
NO_COMMANDS = {"", "text"}

DRY_MAKE = 'make() { command make --dry-run "$@"; }\n'
ASK_HELP = 'python() { command python "$@" --help >/dev/null; }\n'
# The packages are there, and no network is: apt says whether it knows their names.
APT = 'apt-get() { [ "$1" = update ] || command apt-get --simulate --no-upgrade "$@"; }'
ELSEWHERE = "tests/test_backup.py runs it"
# First line: why it is not run, and what is done in its place: shell functions before it, in the
# checkout, or None.
NOT_RUN: dict[str, tuple[str, str | None]] = {
    "README.md: make demo": ("downloads, and does not end; tests/test_demo_run.py", DRY_MAKE),
    "README.md: make up": ("no Docker; tests/test_compose.py", DRY_MAKE),
    "CONTRIBUTING.md: make demo": ("downloads, and does not end", DRY_MAKE),
    "CONTRIBUTING.md: python -m docs.pictures --renderer PROGRAM --prometheus"
    " http://127.0.0.1:PORT": ("needs a renderer", ASK_HELP),
    "benchmarks/README.md: python -m benchmarks.ingest": ("takes half an hour", ASK_HELP),
    "docs/running.md: make up": ("no Docker; tests/test_compose.py", DRY_MAKE),
    "docs/running.md: python3 -m venv ~/ghl-exporter-validate": (
        "takes minutes; tests/test_validate.py",
        None,
    ),
    "docs/running.md: systemctl enable --now grafana-server.service": (
        "Debian has no package of Grafana; tests/test_boards.py",
        None,
    ),
    "docs/backup.md: umask 077": (ELSEWHERE, None),
    "docs/backup.md: createdb --owner=ghl_exporter ghl_exporter_restored": (ELSEWHERE, None),
    "docs/backup.md: pg_restore --no-owner --no-privileges --exit-on-error --single-transaction"
    ' --dbname="$RESTORED_URL" "$BACKUP/database.dump"': (ELSEWHERE, None),
}

SECRETS = "docs/running.md: install -d -m 700 /etc/ghl-exporter"
UP = "docs/running.md: promtool query instant http://127.0.0.1:9090 'up{job=\"ghl-exporter\"}'"
ALERT = (
    "docs/running.md: amtool --alertmanager.url=http://127.0.0.1:9093 alert add GhlExporterDown"
    " severity=page team=on-call \\"
)
DASHBOARD = (
    'docs/running.md: curl --fail --header "Authorization: Bearer $GHL_EXPORTER_KEY"'
    " 'http://127.0.0.1:12105/api/business-metrics/dashboard/LOCATION?days=30&include_trends=true'"
)
PATH = f"{os.environ['PATH']}:/usr/sbin"
PROGRAMS = (
    "pg_createcluster",
    "prometheus",
    "prometheus-alertmanager",
    "nginx",
    "curl",
    "make-ssl-cert",
    "dbus-daemon",
)
# What a person has or answers that follows the page.
BEFORE = {
    # `validate` waits until the KPIs of its location are on /metrics.
    "docs/running.md: install -m 755 docs/systemd/ghl-exporter.sh /usr/local/sbin/ghl-exporter": (
        "echo KPI_INTERVAL=1 >>/etc/ghl-exporter/environment"
    ),
    ALERT: """
        until amtool --alertmanager.url=http://127.0.0.1:9093 alert query >/dev/null 2>&1
        do sleep 0.2; done""",
    UP: """
        until promtool query instant http://127.0.0.1:9090 up 2>/dev/null | grep -q "=> 1 "
        do sleep 0.2; done""",
    # What was tracked counts within seconds.
    DASHBOARD: """
        until curl --fail --silent --output /dev/null \\
            --header "Authorization: Bearer $GHL_EXPORTER_KEY" \\
            http://127.0.0.1:12105/api/business-metrics/summary/LOCATION
        do sleep 0.2; done""",
    "docs/running.md: ghl-exporter import opportunities.jsonl": (
        """echo '{"id": "OPPORTUNITY", "locationId": "LOCATION", "status": "open",
        "createdAt": "2026-02-01T10:00:00Z", "updatedAt": "2026-02-02T10:00:00Z"}' \\
        | tr -d '\\n' >opportunities.jsonl"""
    ),
    # Ctrl-C, once it is ready.
    "README.md: python3 -m venv .venv": """
        export DATABASE_URL=$(cat /etc/ghl-exporter/database_url) LISTEN_ADDRESS=127.0.0.1:12999
        {
            until curl --fail --silent "http://$LISTEN_ADDRESS/-/ready"; do sleep 0.2; done
            pkill --signal INT --full "venv/bin/ghl-exporter serve"
        } &""",
}
ANSWERS = {"docs/running.md: ghl-exporter erase LOCATION --dry-run": "LOCATION"}
# What a block has to write, beside ending well.
SAYS = {
    "docs/running.md: apt-get update": "postgresql",
    "docs/running.md: ghl-exporter check": "ghl_exporter_database_up 1",
    'docs/running.md: echo "TRUSTED_PROXIES=127.0.0.1" >>/etc/ghl-exporter/environment': "401",
    "docs/running.md: ghl-exporter import opportunities.jsonl": "1 new",
    UP: "=> 1 ",
    DASHBOARD: ",250000,",
    "docs/running.md: amtool check-config /etc/alertmanager/alertmanager.yml": "on-call-pages",
    "docs/client.md: platform/bin/python track.py": "LOCATION",
}


def on_machine() -> list[Block]:
    """Return what is run, in its order; what shows something after a while comes last."""
    run = (block for block in BLOCKS if block.page in ON_A_MACHINE and block.name not in NOT_RUN)
    return sorted(run, key=lambda block: block.name == UP)


def test_every_block_is_run_or_listed() -> None:
    names = {block.name for block in BLOCKS}
    for listed in (NOT_RUN, BEFORE, ANSWERS, SAYS):
        assert set(listed) <= names, set(listed) - names
    for block in BLOCKS:
        if block.language not in NO_COMMANDS | {"sql", "promql"} and block.name not in NOT_RUN:
            assert block.page in ON_A_MACHINE, block.name
            # Only these are known how to run.
            assert block.language in {"sh", "python"} or block.file is not None, block.name


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "sh"], ids=lambda block: block.name
)
def test_a_shell_can_read_it(block: Block) -> None:
    done = subprocess.run(
        ["sh", "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if NOT_RUN.get(block.name, ("", None))[1]],
    ids=lambda block: block.name,
)
def test_what_is_not_run_is_known(block: Block) -> None:
    functions = NOT_RUN[block.name][1]
    done = subprocess.run(
        ["bash", "-euc", f"{functions}{block.text}"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_server_takes_the_queries(connection: asyncpg.Connection) -> None:
    for block in BLOCKS:
        # The reference is written from the files that tests/test_kpis.py runs with their arguments.
        if block.language == "sql" and not block.page.startswith("docs/reference/"):
            try:
                await connection.prepare(block.text)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{block.name}\n{block.text}\n{error}")


def test_prometheus_takes_every_expression() -> None:
    for block in BLOCKS:
        if block.language == "promql":
            promql_parser.parse(block.text)


@pytest.mark.usefixtures("role_of_the_pages")
async def test_secrets_and_role_without_root(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """The same block below another root, as another user, and the role can do its work."""
    [block] = [block for block in BLOCKS if block.name == SECRETS]
    server = urlsplit(postgres.url())
    environment = {
        "PATH": f"{client_programs()}:{os.environ['PATH']}",
        "PGHOST": str(server.hostname),
        "PGPORT": str(server.port),
        "PGUSER": str(server.username),
        "PGPASSWORD": str(server.password),
    }
    as_postgres = "su() { psql --set=ON_ERROR_STOP=1 postgres; }\n"
    secrets = tmp_path / "etc/ghl-exporter"
    secrets.parent.mkdir()
    script = as_postgres + block.text.replace("/etc/", f"{tmp_path}/etc/")
    check("bash", "-euo", "pipefail", "-c", script, env=environment)
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o600}
    url = (secrets / "database_url").read_text("utf-8").strip()
    url = url.replace("@127.0.0.1/", f"@{server.hostname}:{server.port}/")
    for arguments in (("migrate",), ("check",), ("rebuild", "--dry-run")):
        done = command(*arguments, database_url=url)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    [block] = [block for block in BLOCKS if block.language == "yaml"]
    (tmp_path / "prometheus.yml").write_text(block.text, "utf-8")
    (tmp_path / "ghl-exporter.token").write_text("token", "utf-8")
    for folder in ("recording_rules", "alerts"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    status, said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert status == 0, said
    assert f"{len(RULE_FILES)} rule files found" in said


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the packages that the page installs, the checkout, and wheels for pip."""
    if reason := why_none():
        pytest.skip(reason)
    programs = (
        "pg_createcluster",
        "prometheus",
        "prometheus-alertmanager",
        "nginx",
        "curl",
        "make-ssl-cert",
    )
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not python_fits("/usr/bin/python3"):
        pytest.skip("the system's Python is of another version than that of the tests")
    environment = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/srv/wheels",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_NO_COMPILE": "1",
    }
    made = Machine(tmp_path_factory.mktemp("machine"), environment)
    wheels = made.root / "srv/wheels"
    wheels.mkdir(parents=True)
    write_wheels(wheels, "ghl-exporter", "hatchling")
    left_out = (".*", "dist", "__pycache__", "*.png")
    shutil.copytree(ROOT, made.root / "root/ghl-exporter", ignore=shutil.ignore_patterns(*left_out))
    with made as booted:
        # As the packages leave it on a new machine, whatever lies in those folders here.
        booted.run("""
            rm -rf /etc/postgresql/* /var/lib/postgresql/* /var/lib/prometheus/*/*
            pg_createcluster "$(ls /usr/lib/postgresql | sort -V | tail -1)" main >/dev/null
            make-ssl-cert generate-default-snakeoil --force-overwrite
            systemctl daemon-reload
            systemctl start postgresql""")
        yield booted


def follow(shell: Shell, block: Block) -> str:
    """Do what a block says."""
    if block.language == "sh":
        if before := BEFORE.get(block.name):
            shell.run(before)
        return shell.run(block.text, ANSWERS.get(block.name, ""))
    to = f"cat >{block.file}" if block.file else "platform/bin/python -"
    return shell.run(f"{to} <<'END OF FILE'\n{block.text}END OF FILE")


@pytest.mark.slow
def test_the_pages_from_top_to_bottom(machine: Machine) -> None:
    with machine.shell() as shell:
        shell.run("cd /root/ghl-exporter")
        shell.run(APT)
        for block in on_machine():
            start = time.monotonic()
            said = follow(shell, block)
            print(f"{time.monotonic() - start:.1f} s, {block.name}\n{said[-2000:]}")
            expected = SAYS.get(block.name, "")
            assert said.find(expected) >= 0, f"{expected!r} not in what {block.name} writes"
    # Secrets are root's, and nobody sees figures without the token.
    readable = machine.run("find /etc/ghl-exporter -type f -perm /077 -not -name environment")
    assert readable == ""
    status = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:12105"
    assert machine.run(f"{status}/metrics") == "401"
    password = machine.run("cut -d: -f3 /etc/ghl-exporter/database_url | cut -d@ -f1").strip()
    assert len(password) == 48
    assert password not in machine.run("journalctl --no-pager --unit=ghl-exporter.service")
    # The role has no right that it does not need.
    may = machine.run("""su --login postgres --command='psql -At ghl_exporter' <<'SQL'
        SELECT rolsuper, rolcreatedb, rolcreaterole,
               has_database_privilege(oid, current_database(), 'CREATE')
        FROM pg_roles WHERE rolname = 'ghl_exporter'
SQL""")
    assert may == "f|f|f|f\n"
