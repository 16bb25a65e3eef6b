# Every target sets itself up in .venv; `make` alone lists them.  PYTHON=... names another interpreter.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test bench bench-operator chaos quality lint format generate lock image version release e2e chaos-cluster clean
# Nobody's Python but .venv's.  With bytecode: else each of the thousand processes that tests start compiles anew what it
# imports, which takes longer than most of what they do then.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python
UV := $(PY) -m uv
PYTHON ?= python3.11 python3.12 python3.13 python3
INPUTS := Makefile pyproject.toml constraints.txt hatch_build.py learner_image/collective_learner/wire/interface.proto

EXTRAS ?= sklearn
REPOSITORY ?=
TAG ?= dev
OPERATOR_IMAGE := $(REPOSITORY)collective-operator:$(TAG)
LEARNER_IMAGE := $(REPOSITORY)collective-learner:$(TAG)

help: ## what there is
	@sed -nE 's/^([-a-z0-9]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/.demo ## train a model with five learners on this machine
	$(VENV)/bin/collective run examples/digits.yaml

# COLLECTIVE_FUZZ=20 tries the operator's properties with twenty times as many examples.  tests/conftest.py says which
# files begin first.
test: $(VENV)/.dev ## all tests that this machine can run; says which it skipped, and what they need
	$(PY) -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.dev ## speed and memory, each beside a baseline from the same run; also as dist/bench.json
	$(PY) -m tests.benchmarks $(BENCH)

bench-operator: $(VENV)/.dev ## a thousand tasks on a real API server, kwok playing the node (TASKS); also as dist/bench-operator.json
	$(PY) -m tests.benchmarks.operator

# SEED=... repeats the plan of a run that printed it.
KILLS ?= 1050
ROUNDS ?= 10000
chaos: $(VENV)/.dev ## break tasks at random: kill -9, pauses, cut networks, full disks (SEED, KILLS, ROUNDS)
	$(PY) tests/chaos --kills $(KILLS) --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

# About half an hour on one idle core; a run that was interrupted goes on where it was (dist/quality.jsonl).
quality: $(VENV)/.dev ## how well each strategy learns where sites are alike and where they differ (docs/quality.md)
	$(PY) -m tests.quality

lint: $(VENV)/.dev ## style, types, layers
	$(PY) -m ruff check --output-format concise
	$(PY) -m ruff format --check --output-format concise
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.dev ## lay the code out as lint wants it
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

generate: $(VENV)/.dev ## dashboards, the chart's README and docs/task.md from their sources (helm/generate)
	$(PY) -m helm.generate

# UPGRADE=--upgrade moves every pin, else only what pyproject.toml asks for moves.
lock: $(VENV)/.tools ## constraints.txt from pyproject.toml
	$(UV) pip compile --quiet $(UPGRADE) --python-version 3.11 --all-extras --no-header --no-emit-index-url \
	    --no-emit-find-links -o constraints.txt pyproject.toml
	sed -i -e '1i # Every version that `make` installs, resolved from pyproject.toml; refresh with `make lock`.' \
	    -e '/^# Every version/d' constraints.txt

# The first builder that works here: a docker client without its daemon does not.
BUILDER = $(or $(shell for tool in docker podman; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done),\
    $(shell command -v buildah >/dev/null && echo buildah),\
    $(error this needs docker with its daemon, podman or buildah))
build_docker = docker build
build_podman = podman build
build_buildah = buildah build --layers --isolation chroot --network host
save_docker = docker save -o $(2) $(1)
save_podman = podman push -q $(1) docker-archive:$(2):$(if $(REPOSITORY),,docker.io/library/)$(1)
save_buildah = buildah push -q $(1) docker-archive:$(2):$(if $(REPOSITORY),,docker.io/library/)$(1)

LABELS = --label org.opencontainers.image.version=$(TAG) $(REVISION:%=--label org.opencontainers.image.revision=%)

image: ## the operator's and the learner's image (EXTRAS=sklearn,torch,...: the learner's frameworks)
	$(eval BUILDER := $(BUILDER))
	$(build_$(BUILDER)) $(LABELS) $(BASE:%=--build-arg BASE=%) -t $(OPERATOR_IMAGE) -f operator/Dockerfile .
	$(build_$(BUILDER)) $(LABELS) $(BASE:%=--build-arg BASE=%) -t $(LEARNER_IMAGE) --build-arg EXTRAS=$(EXTRAS) \
	    -f learner_image/Dockerfile .

# docs/releasing.md tells of both.
version: $(VENV)/.dev ## write VERSION=x.y.z into every file that states the version
	$(PY) -m release version "$(VERSION)"

release: $(VENV)/.dev ## wheel, images, chart, SBOMs of VERSION=x.y.z into dist/release; without VERSION, a rehearsal
	$(PY) -m release make $(VERSION) --repository "$(REPOSITORY)" --extras "$(EXTRAS)" --base "$(BASE)"

# For `make release`: what builds images here, and both images as OCI archives, whose digests stay when they are pushed.
oci_docker = docker save -o $(2) $(1)
oci_podman = podman save -q --format oci-archive -o $(2) $(1)
oci_buildah = buildah push -q $(1) oci-archive:$(2)
.PHONY: builder archives
builder:
	@echo $(BUILDER)
archives: image
	$(call oci_$(BUILDER),$(OPERATOR_IMAGE),$(ARCHIVES)/collective-operator-$(TAG).oci.tar)
	$(call oci_$(BUILDER),$(LEARNER_IMAGE),$(ARCHIVES)/collective-learner-$(TAG).oci.tar)

# COLLECTIVE_IMAGE_LOAD brings an archive onto the nodes, for example 'kind load image-archive {archive}',
# 'k3d image import {archive}' or 'minikube image load {archive}'.  Empty: the nodes find the images by themselves.
ARCHIVES := dist/images
e2e: cluster $(VENV)/.dev loaded ## the whole project on the cluster that KUBECONFIG names
	$(ON_CLUSTER) $(PY) -m pytest tests/e2e

# On the cluster that KUBECONFIG names; without one, on a control plane of KUBEBUILDER_ASSETS whose kubelet is played.
# CHAOS_API_SERVER is a command that kills the API server and has it started again, for a cluster of one's own. SEED=...
# repeats the choices of a run that printed it.
MINUTES ?= 10
CHAOS = COLLECTIVE_CHAOS_MINUTES=$(MINUTES) COLLECTIVE_CHAOS_SEED=$(SEED)
ifeq ($(KUBECONFIG),)
chaos-cluster: $(VENV)/.dev ## kill pods, the operator and the API server for MINUTES (10) while tasks run (KUBECONFIG)
	$(CHAOS) $(PY) -m pytest -s tests/cluster/test_chaos.py
else
chaos-cluster: cluster $(VENV)/.dev loaded
	$(ON_CLUSTER) $(CHAOS) COLLECTIVE_CHAOS_API_SERVER='$(CHAOS_API_SERVER)' $(PY) -m pytest -s tests/e2e/test_chaos.py
endif

ON_CLUSTER = COLLECTIVE_E2E=1 COLLECTIVE_OPERATOR_IMAGE=$(OPERATOR_IMAGE) COLLECTIVE_LEARNER_IMAGE=$(LEARNER_IMAGE)

.PHONY: loaded
loaded: image
	@mkdir -p $(ARCHIVES); rm -f $(ARCHIVES)/*.tar
ifneq ($(COLLECTIVE_IMAGE_LOAD),)
	$(call save_$(BUILDER),$(OPERATOR_IMAGE),$(ARCHIVES)/operator.tar)
	$(subst {archive},$(ARCHIVES)/operator.tar,$(COLLECTIVE_IMAGE_LOAD))
	$(call save_$(BUILDER),$(LEARNER_IMAGE),$(ARCHIVES)/learner.tar)
	$(subst {archive},$(ARCHIVES)/learner.tar,$(COLLECTIVE_IMAGE_LOAD))
	@rm $(ARCHIVES)/*.tar
endif

.PHONY: cluster
cluster:
	@test -n "$${KUBECONFIG:-}" || { echo "KUBECONFIG must name the cluster to use; the images reach its nodes" \
	    "by COLLECTIVE_IMAGE_LOAD, for example 'kind load image-archive {archive}'" >&2; exit 2; }
	@for tool in kubectl helm; do command -v $$tool >/dev/null || { echo "this needs $$tool on PATH" >&2; exit 2; }; done

clean: ## forget .venv and what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# An installation writes its stamp when it is complete.  One that was cut off, or made for a folder that has moved since,
# may look whole and is not: start over.  (One that failed, without the network say, leaves what was there.)
ifneq ($(filter-out $(CURDIR),$(shell cat $(wildcard $(VENV)/.unfinished $(VENV)/.tools) /dev/null)),)
$(shell rm -rf $(VENV))
endif
begin = echo unfinished >$(VENV)/.unfinished; trap 'exit 130' INT TERM HUP; \
    trap '[ $$? -ge 128 ] || rm $(VENV)/.unfinished' EXIT;
end = echo $(CURDIR) >$@

$(VENV)/.tools:
	@for python in $(PYTHON); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    $(PY) -c 'import pip, sys; assert sys.version_info >= (3, 11)' 2>/dev/null || $$python -m venv --clear $(VENV); \
	    break; \
	done; \
	test -x $(PY) || { echo "Python 3.11 or later is needed, none of these is: $(PYTHON)" >&2; exit 2; }
	@$(begin) $(PY) -m pip install -qq 'uv>=0.9,<1'
	@$(end)

INSTALL = $(UV) pip install --quiet --python $(PY) --constraints constraints.txt --build-constraints constraints.txt \
    --reinstall-package collective-operator

$(VENV)/.demo: $(VENV)/.tools $(INPUTS)
	@echo "Installing into $(VENV)"
	@$(begin) $(INSTALL) --editable '.[run,sklearn]'
	@$(end)

# torch comes by pip alone, so that pip's configuration says which build (CPU or CUDA) this machine gets.
$(VENV)/.dev: $(VENV)/.tools $(INPUTS)
	@echo "Installing into $(VENV)"
	@$(begin) $(PY) -m pip install -qq --no-deps --constraint constraints.txt torch; \
	    $(INSTALL) --editable '.[operator,cluster,coordinator,tracing,learner,run,sklearn,torch,torch-dp,keras,onnx,dev,release]'
	@$(end)
