# What a person does with TodoMQ. It needs make and Python 3.11+; everything else goes into .venv.
#
#   make up        start the stack (installs what it needs first)     make test      run all tests (some: ARGS="-s tests/unit")
#   make status    what runs                                          make check     ruff and mypy --strict
#   make logs      the last lines of every daemon (FOLLOW=1: go on)   make demo      lists, kills and every promise
#   make restart   every part after the other, gracefully             make clean     remove .venv and caches; stops the stack
#   make down      stop the stack; its data stays                     make clean DATA=1   removes the stored lists as well
#   make simulate  run the whole topology in one process, SEEDS=1000 times, each with other faults
#   make torture   a stack of its own under faults of every kind, MINUTES=5 SEED=any; what clients were told is checked
#                  (at last some things are provoked, then bytes of the shards are flipped, FLIPS=3; TABLE=file: the figures
#                  as tables in Markdown)
#   make mutants   break each law on purpose and see that the simulation finds it (SEEDS=100, MUTANT=one;
#                  STACK=1: on a real stack, MINUTES=1 each)
#   make fuzz      random and mutated input to every decoder, handler and socket, MINUTES=5 in all (ONLY=targets; KEEP=1
#                  keeps what reached new code)
#   make dist      the source distribution and the wheel, into dist/
#   make bench     measure TodoMQ and its peers (ARGS="--only adds,reads --rounds 1 --quick")
#
# TODOMQ_HOME (default ~/.todomq) says where the stack lives; several run side by side.
#
# PYTHON=/path/to/python3.11 says which Python makes the environment. CI=1 does all of it with the wheel instead of the
# source tree, in an environment of its own, and lets no test be skipped because a program is missing.

$(if $(wildcard services/todomq),,$(error make runs in the checkout: make -C $(dir $(lastword $(MAKEFILE_LIST)))))

PYTHON ?= python3
VENV := $(if $(CI),.venv-wheel,.venv)
PY := $(VENV)/bin/python
TODOMQ := $(PY) -P -m todomq
SERVER := $(VENV)/.server-installed
TEST := $(VENV)/.test-installed
BENCH := $(VENV)/.bench-installed
FUZZ := $(VENV)/.fuzz-installed
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DIST := dist/.built
SOURCES := pyproject.toml MANIFEST.in README.md LICENSE $(shell find services/todomq -name __pycache__ -prune -o -print)

# The homes of the stacks whose supervisord runs with an environment: its path, for grep.
HOMES = for each in $$(grep -lsz '^$(1)/bin/' /dev/null $$(grep -lsz '^supervisor\.supervisord$$' /proc/[0-9]*/cmdline)); do \
    tr '\0' '\n' 2>/dev/null < $${each%cmdline}environ | sed -n 's/^TODOMQ_HOME=//p'; done | sort -u

.PHONY: up down restart status logs test check demo simulate torture mutants fuzz dist bench clean
.DEFAULT_GOAL := up
# With it no command would end where it is done.
unexport PYTHONINSPECT

up: $(SERVER)
	@$(TODOMQ) up

restart: $(SERVER)
	@$(TODOMQ) restart

# What does not need an installation does not make one.
down status logs:
	@if $(PY) -c 'import todomq' 2>/dev/null; then $(TODOMQ) $@ $(if $(FOLLOW),$(if $(filter logs,$@),--follow)); \
	else homes=$$($(call HOMES,$(abspath $(VENV)))); \
	if [ -n "$$homes" ]; then echo "Stacks run though $(VENV), with which they were started, is gone, at home in:" $$homes >&2; \
	    echo "For each: make up, then make $@" >&2; exit 1; fi; \
	echo "TodoMQ is not installed here, so nothing of it runs; start with: make up"; [ $@ = down ]; fi

test: $(TEST)
	@$(PY) -m pytest $(or $(ARGS),--numprocesses 2 --max-worker-restart 0)

check: $(TEST)
	@$(PY) -m ruff check
	@$(PY) -m mypy

simulate: $(TEST)
	@PYTHONPATH=tests $(PY) -m topology --seeds $(or $(SEEDS),1000)

# A signal that ends make is passed on to what it started: that must be what cleans up, not a shell.
torture: $(TEST)
	@exec env PYTHONPATH=tests:tests/system $(PY) -m torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) \
	    $(if $(FLIPS),--flips $(FLIPS)) $(if $(TABLE),--table $(TABLE))

mutants: $(TEST)
	@exec env PYTHONPATH=tests:tests/system $(PY) -m mutations --seeds $(or $(SEEDS),100) $(if $(MUTANT),--only $(MUTANT)) \
	    $(if $(STACK),--stack --minutes $(or $(MINUTES),1))

fuzz: $(FUZZ)
	@PYTHONPATH=tests:tests/protocol $(PY) -m fuzzing --minutes $(or $(MINUTES),5) $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep)

demo: up
	@$(VENV)/bin/todomq demo $(ARGS)

dist: $(DIST)
	@ls dist/*

bench: $(BENCH)
	@$(PY) -m benchmarks $(ARGS)

# Without an environment data is removed by one that is made for it.
clean: $(if $(DATA),$(SERVER))
	@if [ -x $(PY) ] && $(PY) -c 'import todomq.cli.__main__' 2>/dev/null; then $(TODOMQ) down $(if $(DATA),--remove-data --yes); fi
	@homes=$$($(call HOMES,$(CURDIR)/\.venv[^/]*)); \
	if [ -n "$$homes" ]; then echo "Stacks run with what would be removed, at home in:" $$homes >&2; \
	    echo "Stop them first: TODOMQ_HOME=... make down" >&2; exit 1; fi
	rm -rf .venv .venv-wheel build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis services/*.egg-info \
	    examples/javascript/node_modules benchmarks/results/partial
	find services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "TodoMQ needs Python 3.11 or newer, and $(PYTHON) is not; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "$(PYTHON) lacks its venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

ifeq ($(CI),)
# Installed in place, so only a change of what is needed installs again. Compiled here, for daemons restart often, and
# where PYTHONDONTWRITEBYTECODE is set each start would compile again.
$(SERVER) $(TEST) $(FUZZ) $(BENCH): $(VENV)/.%-installed: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV) ..."
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.[$*]'
	@$(PY) -m compileall -q services/todomq
	@touch $@ $(SERVER)
else
$(SERVER) $(TEST) $(FUZZ) $(BENCH): $(VENV)/.%-installed: $(DIST)
	@echo "Installing into $(VENV) ..."
	@$(PIP) "$$(echo dist/*.whl)[$*]"
	@$(PIP) --force-reinstall --no-deps dist/*.whl
	@touch $@ $(SERVER)
endif

# The wheel is built from the source distribution, which shows that that is complete.
$(DIST): $(SOURCES) constraints.txt | $(PY)
	@$(PIP) build setuptools
	@rm -rf dist
	@$(PY) -m build --no-isolation --outdir dist >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@touch $@
