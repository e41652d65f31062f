# What a person does with TodoMQ. It needs make and Python 3.11+; everything else goes into .venv.
#
#   make up        start the stack (installs what it needs first)     make test      run all tests
#   make status    what runs                                          make check     ruff and mypy --strict
#   make logs      the last lines of every daemon (FOLLOW=1: go on)   make demo      the main job on the running stack
#   make restart   every part after the other, gracefully             make clean     remove .venv and caches; stops the stack
#   make down      stop the stack; its data stays                     make clean DATA=1   removes the stored lists as well
#   make simulate  run the whole topology in one process, SEEDS=1000 times, each with other faults
#   make torture   a stack of its own under faults of every kind, MINUTES=5 SEED=any; what clients were told is checked
#   make bench     measure TodoMQ and its peers (ARGS="--only adds,reads --rounds 1 --quick")
#
# TODOMQ_HOME (default ~/.todomq) says where the stack lives; several run side by side.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STACK := $(PY) -m todomq.supervision.stack
SERVER := $(VENV)/.server-installed
TEST := $(VENV)/.test-installed
BENCH := $(VENV)/.bench-installed
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: up down restart status logs test check demo simulate torture bench clean
.DEFAULT_GOAL := up

up: $(SERVER)
	@$(STACK) up

restart: $(SERVER)
	@$(STACK) restart

down status:
	@if [ -x $(PY) ]; then $(STACK) $@; else echo "TodoMQ is not installed here, so nothing of it runs; start with: make up"; [ $@ = down ]; fi

logs: $(SERVER)
	@$(STACK) logs $(if $(FOLLOW),--follow)

test: $(TEST)
	@$(PY) -m pytest $(ARGS)

check: $(TEST)
	@$(PY) -m ruff check
	@$(PY) -m mypy

simulate: $(TEST)
	@PYTHONPATH=tests $(PY) -m topology --seeds $(or $(SEEDS),1000)

torture: $(TEST)
	@PYTHONPATH=tests:tests/system $(PY) -m torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))

demo: up
	@$(VENV)/bin/todomq demo $(ARGS)

bench: $(BENCH)
	@$(PY) -m benchmarks $(ARGS)

clean:
	@if [ -x $(PY) ] && $(PY) -c 'import todomq' 2>/dev/null; then $(STACK) $(if $(DATA),remove-data,down); fi
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis services/*.egg-info
	find services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "TodoMQ needs Python 3.11 or newer, and $(PYTHON) is not; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "$(PYTHON) lacks its venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# Installed in place, so only a change of what is needed installs again.
$(SERVER): pyproject.toml constraints.txt | $(PY)
	@$(INSTALL) '.[server]'
	@touch $@

$(TEST): pyproject.toml constraints.txt | $(PY)
	@$(INSTALL) '.[test]'
	@touch $@ $(SERVER)

$(BENCH): pyproject.toml constraints.txt | $(PY)
	@$(INSTALL) '.[bench]'
	@touch $@ $(SERVER)
