# Two commands matter: `make book` and `make test`. `make help` lists the rest.
PYTHON ?= python3
PROFILE ?= book
PORT ?= 8000
STUDY ?= low_data
PARALLEL ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
SHARED := -n $(PARALLEL) --dist loadfile
NBVAL := $(PYTEST) --nbval --nbval-cell-timeout=600 notebooks

# uv reads no pip settings: hand it pip's folder of local wheels where there is one.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifneq ($(strip $(UV_FIND_LINKS)),)
export UV_FIND_LINKS
endif

.DEFAULT_GOAL := help
.PHONY: help book record pages test test-unit test-pages test-notebooks test-cpus check format serve sweep lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: .venv/stamp ## execute what changed, then build the pages (PROFILE=smoke|book|full)
	$(BIN)/python book/build.py --profile $(PROFILE) --jobs $(PARALLEL)

record: .venv/stamp ## the same, and write the outputs into notebooks/: what the tests compare with
	$(BIN)/python book/build.py --jobs $(PARALLEL) --record

pages: .venv/stamp ## build the pages from the recorded outputs
	$(BIN)/python book/build.py --no-execute

test: test-unit test-notebooks ## the whole suite (PARALLEL=2 files of tests at a time)

test-unit: pages ## units, properties, doctests, and the pages in a real browser
	OMP_NUM_THREADS=1 $(PYTEST) $(SHARED) --doctest-modules tests tdi_lib

test-pages: .venv/stamp ## the pages and notebooks that `make book` made
	NOTEBOOKS=_build/book/notebooks $(PYTEST) tests/test_pages.py tests/test_notebooks.py

# Another instruction set and another number of threads than most machines record with.
test-notebooks: .venv/stamp ## run every notebook again and compare with what is recorded
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(NBVAL) $(SHARED)

test-cpus: .venv/stamp ## the same as other processors would (CORNERS="prescott jitter", or all that this one can play)
	$(BIN)/python tests/corners.py $(CORNERS) -- $(NBVAL) $(SHARED)

sweep: .venv/stamp ## run a study, or what is missing of it (STUDY=name WORKERS=2, or SCHEDULER=tcp://host:8786; TOGETHER=64 on a GPU)
	$(BIN)/python -m tdi_lib.study.sweep $(STUDY) results/$(STUDY).parquet \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(if $(TOGETHER),--together $(TOGETHER))

check: .venv/stamp ## style of code and notebooks, types, spelling, hygiene of the repository
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy tdi_lib
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(PYTEST) tests/test_repository.py

format: .venv/stamp ## put code and notebooks into the one style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

serve: .venv/stamp ## show the book on this machine (PORT=8000)
	test -d _build/html || $(MAKE) pages
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lock: .venv/stamp ## write the versions installed now to constraints.txt
	$(BIN)/uv pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' \
	  | grep -vE '^(jupytext|pip|setuptools|uv|wheel)==' > constraints.txt

clean: ## remove what was built; .venv stays
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# uv finds out whether there is an NVIDIA driver and takes the matching build of torch from PyTorch's own index. Where that
# is out of reach (the probe answers in a second) or UV_TORCH_BACKEND is set, nothing is chosen here.
.venv/stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" uv # this pip resumes a broken download of data
	@# bytecode at once: where Python may not keep it, each of the many processes would compile torch anew
	@export VIRTUAL_ENV=.venv backend="--torch-backend auto"; \
	if [ -n "$$UV_TORCH_BACKEND" ]; then backend=; \
	elif ! echo torch | UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=0 $(BIN)/uv pip compile -q $$backend -c constraints.txt - \
	  > /dev/null 2>&1; then backend=; \
	  echo "PyTorch's own index is out of reach: taking the build of torch there is (on Linux it may bring CUDA libraries)"; \
	fi; \
	$(BIN)/uv pip install --compile-bytecode $$backend -c constraints.txt -e '.[cli,data,train,book,test]'
	touch $@
