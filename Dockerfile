# docker build -t forkproxy .
# docker run --rm -p 10000:10000 -v ./forkproxy.yaml:/etc/forkproxy/forkproxy.yaml:ro forkproxy

FROM python:3.11-slim-bookworm AS build
COPY . /source
# Byte code belongs into the image: its user may not write any.
RUN python3 -m venv /opt/forkproxy \
 && /opt/forkproxy/bin/python3 -m pip install --no-cache-dir --no-compile --disable-pip-version-check /source \
 && /opt/forkproxy/bin/python3 -m pip uninstall -q -y setuptools pip \
 && /opt/forkproxy/bin/python3 -m compileall -q /opt/forkproxy/lib

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10000 forkproxy \
 && useradd --system --uid 10000 --gid 10000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin forkproxy \
 && install -d -o forkproxy -g forkproxy /run/forkproxy /var/log/forkproxy \
 && ln -s /opt/forkproxy/bin/forkproxy /usr/local/bin/forkproxy
COPY --from=build /opt/forkproxy /opt/forkproxy
COPY packaging/docker/forkproxy.yaml /etc/forkproxy/forkproxy.yaml

# `docker exec NAME forkproxy status` and the health check find the control socket by this.
ENV FORKPROXY_CONFIG=/etc/forkproxy/forkproxy.yaml FORKPROXY_PID_FILE=/run/forkproxy/forkproxy.pid

USER forkproxy
# The default configuration's listener. Its admin listens on the container's own loopback, so it is not among them.
EXPOSE 10000
STOPSIGNAL SIGTERM
# Asks through the control socket: right for every configuration, with an admin port or without.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["forkproxy", "healthcheck"]
# The program's own log goes to standard error, the default configuration's access log to standard output.
ENTRYPOINT ["forkproxy", "run"]
