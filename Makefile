# The two commands: `make demo` shows what zseal does, `make test` checks everything. Both install what they need.
.PHONY: demo test lint unit integration bench fuzz boot lock clean help

VENV := .venv
BIN := $(VENV)/bin
# PROGRAM=PACKAGE pairs for tools/require; later Debian releases have QEMU's s390x system in a package of its own
BASE_NEEDS := python3=python3 python:venv=python3-venv python:ensurepip=python3-venv
GUEST_NEEDS := qemu-system-s390x=qemu-system-s390x|qemu-system-misc apt-get=apt dpkg-deb=dpkg \
	/usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
TEST_NEEDS :=
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup

help:
	@echo 'make demo         seal a Debian kernel and boot it as a protected guest (fetches 53 MB once)'
	@echo 'make test         all checks: lint, types, unit and integration tests'
	@echo 'make lint | unit | integration | bench | fuzz | boot'

# Installed packages are those of the lock file; the stamp makes a second run do nothing.
$(VENV)/.installed: requirements/dev.lock pyproject.toml tools/require
	@tools/require $(BASE_NEEDS)
	@test -x $(BIN)/python || { echo "Creating the Python environment $(VENV)"; python3 -m venv $(VENV); }
	@echo 'Installing the locked Python packages'
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.installed
	@tools/require $(GUEST_NEEDS)
	@mkdir -p build
	@$(BIN)/zseal demo --report build/demo.json

test: lint unit integration

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.installed
	@tools/require $(TEST_NEEDS)
	$(PYTEST) tests/unit

integration: $(VENV)/.installed
	@tools/require $(GUEST_NEEDS) $(TEST_NEEDS)
	$(PYTEST) tests/integration

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis boot/build

# Renews the locked versions; run it in the environment of `make lint`, with uv on PATH.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra fast --group dev pyproject.toml -o requirements/dev.lock
