"""PostgreSQL: connections that never wait for ever, migrations, and the lock of the one leader."""
