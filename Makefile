# Needs make and python3 with venv; everything else comes into .venv. uv is used when it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PREFIX ?= /opt/forkproxy
LAB ?= ../shared/tools/systemd-lab.sh
IMAGE ?= forkproxy:latest
# podman, buildah and docker take the same words for this.
DOCKER ?= $(firstword $(foreach program,docker podman buildah,$(if $(shell command -v $(program)),$(program))))

.DEFAULT_GOAL := help
.PHONY: help run test check format layers bench install-service uninstall-service systemd-lab systemd-vm image compiled deb clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

SOURCES := setup.cfg setup.py pyproject.toml scripts/build_schema.py
# -qq: pip's warnings about this machine's own index settings are nobody's business here; errors still show.
INSTALL = if command -v uv >/dev/null 2>&1; then uv pip install -q --python $(BIN)/python -e $(1); \
	  else $(BIN)/python -m pip install -qq --disable-pip-version-check -e $(1); fi

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or later is needed: apt-get install -y python3 python3-venv (or make PYTHON=/path/to/python3.11)" >&2; exit 1; }
	@if command -v uv >/dev/null 2>&1; then uv venv -q --seed --python "$$(command -v $(PYTHON))" $(VENV); \
	 else $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { rm -rf $(VENV); echo "python3-venv is missing: run apt-get install -y python3-venv, then make again" >&2; exit 1; }; fi

$(STAMP): $(SOURCES) | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(call INSTALL,.)
	@touch $@

$(DEV_STAMP): $(SOURCES) | $(BIN)/python
	@echo "installing into $(VENV), with what the tests need ..."
	@$(call INSTALL,'.[dev]')
	@touch $(STAMP) $@

run: $(STAMP) ## serve etc/forkproxy.yaml on 127.0.0.1:10000, admin on 9901
	@echo "try:  curl -i http://127.0.0.1:10000/        (through the proxy)"
	@echo "      curl -s http://127.0.0.1:9901/clusters (its admin)"
	@exec $(BIN)/forkproxy run -c etc/forkproxy.yaml

test: $(DEV_STAMP) ## run all tests
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder  # most of it is waiting: four at a time, also on two cores

check: $(DEV_STAMP) layers ## formatting, lint, types, floors, SUPPORTED.md
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/python scripts/supported --check

layers: $(DEV_STAMP) ## the floors of ARCHITECTURE.md
	@$(BIN)/lint-imports --config setup.cfg

format: $(DEV_STAMP) ## format the code
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

bench: $(DEV_STAMP) ## CPU per request beside Envoy, nginx and HAProxy
	@$(BIN)/python scripts/bench

install-service: ## as root: install into /opt/forkproxy and start the systemd service
	@test "$$(id -u)" = 0 || { echo "install-service needs root: sudo make install-service" >&2; exit 1; }
	@$(PYTHON) -m venv $(PREFIX) 2>/dev/null \
	  || { echo "python3-venv is missing: run apt-get install -y python3-venv, then make again" >&2; exit 1; }
	$(PREFIX)/bin/python -m pip install -q --disable-pip-version-check .
	ln -sf $(PREFIX)/bin/forkproxy /usr/local/bin/forkproxy
	$(PREFIX)/bin/forkproxy systemd install

uninstall-service: ## as root: stop and remove the service; the configuration stays
	@test "$$(id -u)" = 0 || { echo "uninstall-service needs root: sudo make uninstall-service" >&2; exit 1; }
	$(PREFIX)/bin/forkproxy systemd uninstall
	rm -rf $(PREFIX) /usr/local/bin/forkproxy

systemd-lab: $(DEV_STAMP) ## as root: test service and package under a real systemd (the lab's script: LAB=path)
	@FORKPROXY_SYSTEMD_LAB=$(LAB) $(BIN)/python -m pytest -rs tests/integration/test_systemd_lab.py

systemd-vm: $(DEV_STAMP) ## as root: the service in an emulated machine with 4 CPUs on 2 NUMA nodes (some minutes)
	@FORKPROXY_SYSTEMD_MODE=vm FORKPROXY_SYSTEMD_LAB=$(LAB) $(BIN)/python -m pytest -rs tests/integration/test_systemd_lab.py

image: ## build the container image (IMAGE=name:tag, DOCKER=docker|podman|buildah)
	@test -n "$(DOCKER)" || { echo "none of docker, podman, buildah is installed: apt-get install -y buildah" >&2; exit 1; }
	$(DOCKER) build -t $(IMAGE) .

compiled: $(DEV_STAMP) ## make dist/forkproxy-VERSION-*.whl for this Python, its request path compiled by mypyc (a C compiler, two minutes)
	@rm -rf build/compiled-tree
	@$(BIN)/python scripts/compiled build/compiled-tree --wheel dist
	@ls dist/forkproxy-*-*linux*.whl

deb: $(STAMP) ## make dist/forkproxy_VERSION_ARCH.deb, with its libraries in it
	@$(BIN)/python scripts/deb

clean: ## remove what the commands above made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f forkproxy/config/schema.bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
