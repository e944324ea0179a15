# Once, before PostgreSQL takes connections: a database and its owner, who is no superuser, for the
# exporter. The superuser's password is another, and no other container has it.
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
    --set=password="$(cat "${SECRETS:-/run/secrets}/postgres_password")" <<'SQL'
CREATE ROLE ghl_exporter LOGIN PASSWORD :'password';
CREATE DATABASE ghl_exporter OWNER ghl_exporter;
SQL
