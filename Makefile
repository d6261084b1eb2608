# The two commands: `make demo` shows what zseal does, `make test` checks everything. Both install what they need.
.PHONY: help demo test dev lint format unit integration coverage kernels fresh bench fuzz soak native lock clean

VENV := .venv
BIN := $(VENV)/bin
# PROGRAM=PACKAGE pairs for tools/require; later Debian releases have QEMU's s390x system in a package of its own
BASE_NEEDS := python3=python3 python:venv=python3-venv python:ensurepip=python3-venv
GUEST_NEEDS := qemu-system-s390x=qemu-system-s390x,qemu-system-misc apt-get=apt dpkg-deb=dpkg \
	/usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
# libvirt in this process (qemu:///embed), its schemas, and what building its Python bindings takes
LIBVIRT_NEEDS := /usr/share/libvirt/schemas/domain.rng=libvirt0 gcc=gcc pkg-config=pkg-config python3-config=python3-dev \
	/usr/include/libvirt/libvirt.h=libvirt-dev /etc/libvirt/qemu.conf=libvirt-daemon-system \
	virsh=libvirt-clients
TEST_NEEDS := make=make chromium=chromium qemu-img=qemu-utils
PYTEST := pytest -n 2 --dist loadgroup

help:
	@echo 'make demo         seal a Debian kernel and boot it as a protected guest (fetches 55 MB once)'
	@echo 'make test         all checks: lint, types, unit and integration tests'
	@echo 'make dev          everything that working on zseal takes, in .venv'
	@echo 'make format       let ruff format the code and repair what it can'
	@echo 'make lint | unit | integration | coverage | kernels | fresh | bench | fuzz | soak | native'

# What is installed are the locked packages; the stamps make a second run do nothing. The environment for tests has a
# compiler for s390x and other large things that the demonstration does without.
define install
	@tools/require $(BASE_NEEDS)
	@test -x $(BIN)/python || { echo "Creating the Python environment $(VENV)"; python3 -m venv $(VENV); }
	@echo 'Installing the Python packages of $<'
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
endef

$(VENV)/.run: requirements/run.lock pyproject.toml
	$(install)

$(VENV)/.dev: requirements/dev.lock pyproject.toml
	$(install)
	@touch $(VENV)/.run

$(VENV)/.libvirt: requirements/libvirt.lock $(VENV)/.dev
	@tools/require $(LIBVIRT_NEEDS)
	@echo 'Building the Python bindings of libvirt'
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-build-isolation -r requirements/libvirt.lock
	@touch $@

demo: $(VENV)/.run
	@tools/require $(GUEST_NEEDS)
	@mkdir -p build
	@$(BIN)/zseal demo --report build/demo.json

test: lint unit integration

dev: $(VENV)/.libvirt
	@tools/require $(GUEST_NEEDS) $(TEST_NEEDS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.libvirt
	@tools/require $(GUEST_NEEDS) $(TEST_NEEDS)
	$(BIN)/$(PYTEST) tests/unit

integration: $(VENV)/.libvirt
	@tools/require $(GUEST_NEEDS) $(TEST_NEEDS)
	$(BIN)/$(PYTEST) tests/integration

# The share of the lines and branches of src/zseal that the tests run, in programs that they start as well. Those that
# boot Debian kernels are left out: they add little to it and take long. The floor stands in pyproject.toml.
coverage: $(VENV)/.libvirt
	@tools/require $(GUEST_NEEDS) $(TEST_NEEDS)
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m $(PYTEST) -m 'not kernel' tests/unit tests/integration
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage html -q -d build/coverage/html
	$(BIN)/coverage report

# Kernels that Debian has only as sources, built once (300 MB to fetch, 10 minutes).
KERNEL_NEEDS := make=make s390x-linux-gnu-gcc=gcc-s390x-linux-gnu flex=flex bison=bison bc=bc
kernels: $(VENV)/.dev
	@tools/require $(GUEST_NEEDS) $(KERNEL_NEEDS)
	$(BIN)/pytest tests/kernels

fresh:
	tests/fresh/run.sh

# Coverage-guided fuzzing of the parsers; FUZZ_SECONDS is the time for each of the two. It starts from tests/fuzz/corpus,
# and from what earlier runs found in build/fuzz. Inputs that broke something are left there, too.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/fuzz.lock
	@for target in image hostkeys; do mkdir -p build/fuzz/$$target && \
		$(BIN)/python tests/fuzz/fuzz_$$target.py build/fuzz/$$target \
			-max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ || exit 1; \
	done

# The ultravisor against its model for many more steps than in the unit tests, with 1 MiB frames.
SOAK_STEPS ?= 1000000
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak.ultravisor $(SOAK_STEPS)

# Figures as ratios within one run; see the head of each file for what it takes.
bench: $(VENV)/.dev
	@tools/require $(GUEST_NEEDS)
	for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

# Renews the compiled parts in the package; commit them with their sources.
native: $(VENV)/.dev
	$(MAKE) -C native ZIG="$(abspath $(BIN))/python -m ziglang" install

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis native/build

# Renews the locked versions; needs uv.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	$(LOCK) --extra fast --group run pyproject.toml -o requirements/run.lock
	$(LOCK) --extra fast --group run --group dev pyproject.toml -o requirements/dev.lock
	$(LOCK) --extra fast --group fuzz pyproject.toml -o requirements/fuzz.lock
	$(LOCK) --group libvirt -o requirements/libvirt.lock
