# Laptops and CI use the same targets. Everything is installed into .venv, and nothing elsewhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 6

.DEFAULT_GOAL := help
.PHONY: help install demo first-minutes check test test-quick test-redis reference lock pictures release dist audit policies chaos explore soak soak-transfer soak-trigger scale bench-queue bench-poll bench-enqueue bench-transfer bench-gateway bench-size bench-console bench-memory bench-archive bench-columns bench-puts bench-export bench-indexes format clean scale-model

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install all commands and the development tools into .venv

$(VENV)/.installed: pyproject.toml requirements.lock
	@PYTHON=$(PYTHON) .ci/install all,dev
	@touch $(VENV)/.demo $@

# The demo needs a quarter of the packages. A later `make install` adds the others.
$(VENV)/.demo: pyproject.toml requirements.lock
	@PYTHON=$(PYTHON) .ci/install demo
	@touch $@

demo: $(VENV)/.demo ## Run every kind of export on this machine, with real workers (ARGS=--serve keeps it running)
	@$(BIN)/export-worker demo $(ARGS)

first-minutes: install ## Play a new user's first minutes on a machine without packages, and save the screens (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python -m first_minutes $(ARGS)

check: install ## Run the linter, the format check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy worker/export_worker producers/export_producers tests

test: install ## Run all tests; they start a real Redis and a real S3 server
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-quick: install ## Run the quick tests, which start no worker: an answer within two minutes
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal tests/unit tests/conformance tests/architecture \
	  --ignore tests/architecture/test_compose.py --ignore tests/architecture/test_kubernetes_runs.py $(ARGS)

test-redis: install ## Run the tests of Redis, on the one of the PATH (ARGS=--redis=SERVER chooses another, or `embedded`)
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal tests/unit/redis tests/integration/redis \
	  tests/e2e/test_redis_conditions.py tests/e2e/test_doctor.py tests/e2e/test_sentinel.py $(ARGS)

reference: install ## Write the reference page and the schema of the settings, after a change of a setting or a field
	$(BIN)/export-worker schema reference > worker/REFERENCE.md
	$(BIN)/export-worker schema config > worker/export-worker.schema.json

lock: install ## Resolve the newest compatible dependencies and write both lock files
	@.ci/lock

pictures: install ## Write the pictures of the console that the READMEs show, as the tests take them in Chromium
	@CONSOLE_PICTURES=producers/pictures $(BIN)/pytest --numprocesses 0 tests/integration/producers/gateway/test_console_pictures.py

release: ## Prepare the release of a version: changelog, and the version in all files (VERSION=0.2.0)
	@$(PYTHON) .ci/release.py $(VERSION)

dist: install ## Build wheel and sdist into dist/, check them, and run the demo from the wheel elsewhere
	@.ci/dist

audit: install ## Check the pinned dependencies for known vulnerabilities, if the advisory source is reachable
	@.ci/audit

policies: install ## Check the manifests, the Helm chart and the Dockerfile with the policies of checkov
	@.ci/policies

chaos: install ## Kill, freeze and cut off workers of all platforms, and check every promise (ARGS='--kills 1000 --seed 7')
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

soak: install ## As chaos, for at most four minutes and without its other scenarios
	@PYTHONPATH=tests $(BIN)/python -m chaos kills --kills 150 --seconds 180 $(ARGS)

explore: install ## Walk interleavings of workers, faults and requests, and check every promise (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python -m explore $(ARGS)

soak-transfer: install ## Transfer 20 GiB of unknown length and check that the memory of the worker stays constant
	@PYTHONPATH=tests $(BIN)/python -m soak.transfer

bench-queue: install ## Measure steps per second and Redis calls per step with 1, 2 and 4 workers, compared with arq's no-op jobs
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_queue.py

soak-trigger: install ## Kill a trigger 200 times between receiving and acknowledging, and check that each message makes one export
	@TRIGGER_KILLS=200 $(BIN)/pytest tests/e2e/test_trigger.py -k killed

scale: install ## Scale 1 -> 4 -> 1 workers by the metric of due steps, as KEDA does, over 600 exports
	@SCALE_EXPORTS=600 $(BIN)/pytest tests/e2e/test_scale_out.py -o log_cli=true --log-cli-level=INFO

bench-poll: install ## Compare planned polls with exponential backoff: polls per export, and delay after its end
	@$(BIN)/python tests/benchmarks/bench_poll.py

bench-transfer: install ## Compare transfers into S3 with other tools (ARGS=--help)
	@$(BIN)/python tests/benchmarks/transfer $(ARGS)

bench-enqueue: install ## Measure enqueued requests per second: library, HTTP, and plain arq
	@$(BIN)/python tests/benchmarks/bench_enqueue.py

bench-export: install ## Measure a small export from enqueue to event, beside a worker without guarantees (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/export $(ARGS)

bench-gateway: install ## Measure the gateway's processor time for each request, compared with a bare aiohttp handler
	@$(BIN)/python tests/benchmarks/bench_gateway.py $(ARGS)

bench-console: install ## Measure the console with a million exports: pages, 200 open tabs and bulk runs (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/console $(ARGS)

bench-indexes: install ## Compare lists, the overview, claims and the sweep of a thousand exports with those of a million (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_indexes.py $(ARGS)

bench-size: install ## Measure memory and processor time of each process, idle and under load, for the sizing table
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_size.py

bench-puts: install ## Measure the processor time of the three puts of a small export, compared with boto3 (ARGS=--help)
	@$(BIN)/python tests/benchmarks/bench_puts.py $(ARGS)
scale-model: install ## Compute what a load needs of Redis and of each process (ARGS="--exports=1000000 --files=3", ARGS=--check runs slices)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/scale $(ARGS)

bench-memory: install ## Measure the Redis memory of a waiting and of an ended export, by key and by the growth of the server (ARGS=--help)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_memory.py $(ARGS)

bench-archive: install ## Measure the archive of one hour: processor time, bytes and memory (ARGS=--exports=100000)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_archive.py $(ARGS)

bench-columns: install ## Measure what changed columns cost: processor time and memory, compared with Python's csv (ARGS=--mib=2048)
	@$(BIN)/python tests/benchmarks/bench_columns.py $(ARGS)

format: install ## Format the code and apply the fixes of the linter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything that was installed or cached
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
