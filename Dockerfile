# The service in a container, without root and without build tools.
#
#   docker build -t poisoning-monitor .
#   docker run --rm --network host -e MONITOR_KAFKA__BOOTSTRAP_SERVERS=localhost:9092 \
#       poisoning-monitor
#
# The HTTP interface listens on the container's own localhost: with --network host that is this
# machine's. To reach it from elsewhere mount tokens and a certificate, and set
#   MONITOR_HTTP__HOST=0.0.0.0 MONITOR_HTTP__TOKENS_FILE=/data/tokens.json
#   MONITOR_HTTP__TLS_CERT_FILE=… MONITOR_HTTP__TLS_KEY_FILE=…
# With MONITOR_HTTP__TLS_CLIENT_CA_FILE give a health check of your own: this one has no certificate.

FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
# First what changes seldom, so that a change of the code builds in seconds.
COPY deploy/requirements.txt ./
RUN python -m venv /opt/monitor \
    && /opt/monitor/bin/pip install --require-hashes --only-binary :all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY monitor ./monitor
RUN /opt/monitor/bin/pip install --no-deps . \
    && /opt/monitor/bin/pip check

FROM python:3.12.11-slim-bookworm
LABEL org.opencontainers.image.title="poisoning-monitor" \
      org.opencontainers.image.description="A gate between labelled feedback and online models" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH="/opt/monitor/bin:$PATH" \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1
RUN groupadd --system --gid 10001 monitor \
    && useradd --system --uid 10001 --gid 10001 --create-home --home-dir /data --shell /usr/sbin/nologin monitor
COPY --from=build /opt/monitor /opt/monitor
USER 10001
WORKDIR /data
# Nothing else is written to: with --read-only give it /data and --tmpfs /tmp.
VOLUME ["/data"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import http.client as h, os, ssl; e = os.environ.get; a = ('127.0.0.1', int(e('MONITOR_HTTP__PORT', 8765))); c = h.HTTPSConnection(*a, timeout=4, context=ssl._create_unverified_context()) if e('MONITOR_HTTP__TLS_CERT_FILE') else h.HTTPConnection(*a, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["poisoning-monitor"]
CMD ["run"]
