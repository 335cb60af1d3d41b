# The same targets for a laptop and for CI. Everything lives in .venv; nothing else is installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 4

.DEFAULT_GOAL := help
.PHONY: help install demo check test lock audit soak soak-transfer soak-trigger scale bench-queue bench-poll bench-enqueue bench-transfer bench-size bench-memory format clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install everything for every command, and the tools of development

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("export-worker needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[all,dev]'
	@touch $@

demo: install ## Run every kind of export on this machine, through real workers
	@$(BIN)/export-worker demo $(ARGS)

check: install ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy worker/export_worker producers/export_producers tests

test: install ## The whole test suite, against a real Redis and a real S3 server that it starts itself
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lock: install ## Choose the newest dependencies that fit each other, and write both lock files
	@.ci/lock

audit: install ## Look the pinned dependencies up among known vulnerabilities, if that can be reached from here
	@.ci/audit

soak: install ## 200 exports while workers die, Redis restarts, and S3 and the platform fail one call in ten
	@PYTHONPATH=tests $(BIN)/python -m soak

soak-transfer: install ## 20 GiB of unknown length through a worker whose memory stays flat
	@PYTHONPATH=tests $(BIN)/python -m soak.transfer

bench-queue: install ## Steps a second and Redis calls a step, beside arq's no-op jobs, with 1, 2 and 4 workers
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_queue.py

soak-trigger: install ## A trigger killed two hundred times between receiving and acknowledging: one export each time
	@TRIGGER_KILLS=200 $(BIN)/pytest tests/e2e/test_trigger.py -k killed

scale: install ## 600 exports that drive 1 -> 4 -> 1 workers by the metric of what is due, as KEDA would
	@SCALE_EXPORTS=600 $(BIN)/pytest tests/e2e/test_scale_out.py -o log_cli=true --log-cli-level=INFO

bench-poll: install ## Polls for an export and delay after its end: the plan beside plain backoff
	@$(BIN)/python tests/benchmarks/bench_poll.py

bench-transfer: install ## Bytes from a platform into S3: this engine beside its peers (ARGS=--help)
	@$(BIN)/python tests/benchmarks/transfer $(ARGS)

bench-enqueue: install ## Requests a second into the queue: library, HTTP, and plain arq beside them
	@$(BIN)/python tests/benchmarks/bench_enqueue.py

bench-size: install ## Memory and processor time of workers, idle and at work: the sizing table
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_size.py

bench-memory: install ## What an export takes in Redis, over some hundred exports of the demo (ARGS=--exports=N)
	@$(BIN)/python tests/benchmarks/bench_memory.py $(ARGS)

format: install ## Put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything that was installed or cached
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
