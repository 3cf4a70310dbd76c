# Everything runs inside .venv, which is made once and again only when the lock or pyproject.toml change.

PYTHON ?= python3
VENV := .venv/bin

# The interpreter's version is part of the stamp's name: another PYTHON means another environment, not a silent mix.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
STAMP := .venv/ready-$(VERSION)
LOCK := .ci/locks/py$(subst .,,$(VERSION)).txt

# Tests start Python hundreds of times: each start would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help report report-full picture documents test test-slow test-performance bench-check counts check lab lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

report: $(STAMP) ## measure all of it and write the HTML report (quick profile)
	@$(VENV)/perfkit report --profile quick

report-full: $(STAMP) ## the same, thorough: up to an hour
	@$(VENV)/perfkit report --profile full --cell-timeout 3600

picture: $(STAMP) ## docs/report.png anew, from the index of a report that this runs (needs chromium)
	@command -v chromium >/dev/null || { echo "make picture needs chromium: apt-get install chromium" >&2; exit 1; }
	@profile=$$(mktemp -d) && trap 'rm -rf "$$profile"' EXIT && \
	  page=$$($(VENV)/perfkit report --profile quick) && \
	  chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
	    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$$profile" \
	    --window-size=1100,1500 --screenshot=docs/report.png "file://$$(realpath "$$page")" 2>/dev/null

documents: $(STAMP) ## the figures in docs/ and README anew, from RUN=reports/<run> or from the sample in git
	@$(VENV)/python -m perfkit.report.stories.documents $(RUN)

# pytest-cov would parse every file twice for one report.
test: $(STAMP) ## every test that is not slow, on every core, with branch coverage
	@$(VENV)/python -m pytest -n logical --dist worksteal -m "not slow" --cov --cov-report= --cov-fail-under=0
	@$(VENV)/coverage report

test-slow: $(STAMP) ## the tests marked slow, and those of properties with many more examples
	@$(VENV)/python -m pytest -m "slow and not performance"
	@$(VENV)/python -m pytest -n logical --dist worksteal -m "hypothesis and not slow" --hypothesis-profile thorough

test-performance: $(STAMP) ## the plan's figures on the real cluster, for an idle machine
	@$(VENV)/python -m pytest -m performance

bench-check: $(STAMP) ## is the coordinator slower than this machine's baseline? (error 3: yes, 4: unclear, 2: no baseline)
	@$(VENV)/perfkit baseline check

counts: $(STAMP) ## accept what a task costs now, in messages, bytes and allocations, as the baseline of `make test`
	@$(VENV)/perfkit baseline save --counts

check: $(STAMP) ## lint, format, types and house style
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/python -m pytest -q tests/test_tidy.py

lab: $(STAMP) ## JupyterLab on a copy of the notebooks, with a cluster; options as ARGS="--workers 4"
	@$(VENV)/perfkit lab $(ARGS)

# Only the public registry, whatever this machine's pip is told: its hashes are those every other machine will see.
lock: $(STAMP) ## pin every dependency anew for this Python, with hashes
	@mkdir -p $(dir $(LOCK))
	env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	  $(VENV)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra infer --extra lab --extra serve --extra gpu --extra profile --extra peers --extra dev --output-file $(LOCK) pyproject.toml

clean: ## remove .venv, caches and generated reports
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find cluster perfkit notebooks tests \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	find reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name baselines ! -name sample.json -exec rm -rf {} +

$(STAMP): pyproject.toml .ci/bootstrap .ci/models.txt $(wildcard $(LOCK))
	@.ci/bootstrap $(PYTHON)
	@touch $@
