# `make` lists what can be made. It needs Python 3.10 or newer with its `venv` module.

PYTHON ?= python3
# On Linux with x86 there is a TensorFlow without GPU parts: the smallest download. For a GPU:
# make test TENSORFLOW='tensorflow[and-cuda]'
TENSORFLOW ?= $(if $(filter Linux/x86_64,$(shell uname -s)/$(shell uname -m)),tensorflow-cpu,tensorflow)

# For a GPU: make test-gpu JAX='jax[cuda13]'
JAX ?= jax

# Minor versions of TensorFlow, and JAX, on which `make test-portable` tries one wheel.
PORTABLE ?= $(TENSORFLOW)~=2.18.0 $(TENSORFLOW)~=2.20.0 jax~=0.5.0 jax

# Python compiles what it imports; pip would compile all files of every package, for minutes.
# (pip wants a "no" to switch on an option that begins with "no".)
export PIP_NO_COMPILE = no
export PIP_DISABLE_PIP_VERSION_CHECK = yes

comma := ,
on_tensorflow = KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=1 .venv/bin/python
on_jax = KERAS_BACKEND=jax .venv-jax/bin/python

.DEFAULT_GOAL = help
.PHONY: help demo test test-jax kernels test-portable sanitize bench test-gpu bench-gpu bazel
.PHONY: docs lint format wheel venv clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: kernels ## Train LeNet with PAU on small real images, beside ReLU; draw what PAU learned
	@$(on_tensorflow) -m training.demo

test: kernels ## Run every test on TensorFlow
	@$(on_tensorflow) -m pytest -n auto

test-jax: .venv-jax/ready ## Run the tests on JAX, where TensorFlow is not installed
	@.venv-jax/bin/python custom_ops/build.py
	@$(on_jax) -m pytest -n auto

kernels: .venv/ready ## Build the compiled kernels (custom_ops), as far as something has changed
	@.venv/bin/python custom_ops/build.py

test-portable: wheel ## Try that one wheel on several versions of TensorFlow and on JAX
	@for package in $(PORTABLE); do $(call portable,$$package) || exit 1; done

sanitize: .venv/ready ## Fuzz the C++ code for SECONDS=20 under sanitizers; threads and forks too
	@.venv/bin/python tests/native/run.py fuzz $(or $(SECONDS),20)
	@.venv/bin/python tests/native/run.py handlers $(or $(SECONDS),20)
	@.venv/bin/python tests/native/run.py threads
	@.venv/bin/python tests/native/run.py fork

bench: kernels .venv-jax/ready ## Measure speed and memory as ratios (TORCH_PYTHON: beside PyTorch)
	@$(on_tensorflow) -m benchmarks.activations $(addprefix --torch_python=,$(TORCH_PYTHON))
	@$(on_tensorflow) -m benchmarks.costs
	@$(on_tensorflow) -m benchmarks.training_step
	@$(on_jax) -m benchmarks.activations
	@$(on_jax) -m benchmarks.training_step
	@$(on_jax) -m benchmarks.seeds

test-gpu: .venv-jax/ready ## Test the kernels on a GPU, with JAX and, if it is there for GPUs, TensorFlow
	@.venv-jax/bin/python custom_ops/build.py
	@$(on_jax) -m tests.gpu.check
	@if [ -e .venv/ready ] && $(on_tensorflow) -c 'import sys, tensorflow as tf; \
	  sys.exit(not tf.test.is_built_with_cuda())'; then $(on_tensorflow) -m tests.gpu.check; fi

bench-gpu: .venv-jax/ready ## Measure the kernels' speed on a GPU, beside KAT's kernels if installed
	@.venv-jax/bin/python custom_ops/build.py
	@$(on_jax) -m benchmarks.gpu

bazel: kernels ## Build custom_ops and run its tests with Bazel 4 (Debian's bazel-bootstrap)
	@bazel test --repo_env=PYTHON_BIN_PATH=$(CURDIR)/.venv/bin/python $(BAZEL_FLAGS) \
	  //custom_ops/... //tests/native/...

docs: kernels ## Build the documentation into build/site; its gallery trains every activation
	@.venv/bin/python -m pip install --quiet --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(on_tensorflow) -m mkdocs build --quiet
	@echo 'Open build/site/index.html'

lint: .venv/ready ## Check style and format
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: .venv/ready ## Mend style and format
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

wheel: .venv/ready ## Build the package into dist/, for many versions of TensorFlow and JAX
	@rm -rf build/lib* build/bdist* dist  # files of an older build would be packed too
	@KERAS_LEARNACT_LIBRARIES='tf xla' .venv/bin/python -m build --wheel

venv: .venv/ready ## Install what all of this needs into .venv (done by itself when missing)

clean: ## Remove what make made, the installed packages too
	rm -rf .venv .venv-jax .venv-portable build bazel-* dist *.egg-info .cache .pytest_cache .ruff_cache .hypothesis

# JAX too: Keras on JAX writes SavedModels where TensorFlow is beside it.
.venv/ready: pyproject.toml
	$(call install,.venv,$(TENSORFLOW),training$(comma)datasets$(comma)sweep$(comma)dev$(comma)onnx$(comma)litert$(comma)jax)

.venv-jax/ready: pyproject.toml
	$(call install,.venv-jax,$(JAX),training$(comma)dev)

# $(call portable,PACKAGE): the program in an environment with the wheel and this package
define portable
{ folder=$$PWD/.venv-portable/$(1); backend=tensorflow; \
  case $(1) in jax*) backend=jax;; esac; \
  echo "--- $(1)"; \
  { [ -e $$folder/ready ] || { $(PYTHON) -m venv $$folder && \
    $$folder/bin/python -m pip install --quiet "$(1)" dist/*.whl && \
    touch $$folder/ready; }; } && \
  $$folder/bin/python -m pip install --quiet --no-deps \
    --force-reinstall dist/*.whl && \
  (cd $$folder && KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=2 bin/python \
    $(CURDIR)/tests/native/portable.py); }
endef

# $(call install,ENVIRONMENT,BACKEND,EXTRAS): those of pyproject.toml
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
  echo 'keras_learnact needs Python 3.10 or newer. Received: PYTHON=$(PYTHON), which says' \
    "\"$$($(PYTHON) --version 2>&1 | head -n 1)\". Name another: make $(MAKECMDGOALS) PYTHON=python3.12"; \
  exit 1; }
@echo 'Installing $(2) and the rest into $(1) (once; some minutes) ...'
@$(PYTHON) -m venv $(1) || { \
  echo '$(PYTHON) could not make a virtual environment: see the lines above.' \
    'On Debian and Ubuntu this helps: sudo apt install python3-venv'; \
  exit 1; }
@$(1)/bin/python -m pip install --quiet \
  '$(2)' --editable '.[$(3)]' || { \
  echo 'The installation is not complete: see the lines above. If there is no $(2)' \
    "for $$($(1)/bin/python --version), start anew: make clean $(MAKECMDGOALS) PYTHON=python3.12"; \
  exit 1; }
@touch $@
endef
