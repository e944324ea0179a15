# The service alone: no embedded servers, no test tools, no compiler, no pip in its environment.
FROM python:3.13.16-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641 AS base

FROM base AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Before the code, for they change less often.
COPY requirements/build.txt requirements/service.txt requirements/
RUN python -m venv --without-pip /opt/build \
    && python -m venv --without-pip /opt/ghl-exporter \
    && pip --python /opt/build/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && pip --python /opt/ghl-exporter/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements/service.txt
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /src/dist \
    && pip --python /opt/ghl-exporter/bin/python install --no-index --no-deps /src/dist/*.whl \
    && pip --python /opt/ghl-exporter/bin/python check

FROM base
LABEL org.opencontainers.image.title="ghl-exporter" \
    org.opencontainers.image.description="Receives HighLevel (GHL) webhooks without loss and publishes business KPIs to Prometheus" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="docker.io/library/python:3.13.16-slim-bookworm"
ENV PATH=/opt/ghl-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LISTEN_ADDRESS=0.0.0.0:12105 \
    SPOOL_PATH=/var/lib/ghl-exporter/spool.sqlite3 \
    LOG_FORMAT=json
# A new volume takes over the owner of the folder that it is mounted on.
RUN install --directory --owner=10001 --group=10001 /var/lib/ghl-exporter /keys
COPY --from=builder /opt/ghl-exporter /opt/ghl-exporter
USER 10001:10001
WORKDIR /var/lib/ghl-exporter
EXPOSE 12105
# Straight to the socket: urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LISTEN_ADDRESS'].rpartition(':')[2]), timeout=3); c.request('GET', '/-/healthy'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["ghl-exporter"]
CMD ["serve"]
