# make demo: install and run the main job.  make test: install, check and test.  Both work from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TESTED := $(VENV)/test-tools
SIMD := build/pillow-simd
TREE := build/tree
AVX2 := $(shell grep -qsw avx2 /proc/cpuinfo && echo -mavx2)
DATA ?=
EDITABLE ?= --editable  # empty: what is installed needs the checkout no more

.PHONY: install pillow-simd demo test check docs tree format clean

install: $(INSTALLED)
	@$(BIN)/python -c "from spectral_shards.preprocess.pipeline.coefficients import kernel_name; \
	  from spectral_shards.preprocess.pipeline.decode import resizer_name; \
	  print('resizing with', resizer_name()); \
	  print('transforming with', kernel_name(), 'code'); \
	  from spectral_shards.shards_manifest.shard.codec import compressor_name; \
	  name = compressor_name(); print('compressing with', name if 'zlib' in name else 'compiled code')"

$(INSTALLED): pyproject.toml preprocess/pipeline/_kernel.c preprocess/pipeline/_kernel_run.h \
    shards_manifest/shard/_deflate.c shards_manifest/shard/_inflate.c
	@echo "installing into $(VENV): two minutes or three, most of it torch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(EDITABLE) '.[train,demo]'
	@$(MAKE) --no-print-directory pillow-simd
	@touch $@

# the test tools, clusters and servers among them, are more than a demo needs
$(TESTED): $(INSTALLED)
	$(BIN)/pip install --quiet --editable '.[test]'
	@$(MAKE) --no-print-directory pillow-simd
	@touch $@

# Pillow-SIMD takes Pillow's place where it can be built; both provide PIL, so one has to go.
pillow-simd:
	@mkdir -p $(SIMD)
	@echo "building Pillow-SIMD (log in $(SIMD)/build.log)"
	@if ls $(SIMD)/*.whl >/dev/null 2>&1 || CC="$(or $(CC),cc) $(AVX2)" \
	    $(BIN)/pip wheel --no-deps --no-binary pillow-simd --wheel-dir $(SIMD) pillow-simd >$(SIMD)/build.log 2>&1; then \
	  $(BIN)/pip uninstall -qq --yes pillow pillow-simd && \
	  $(BIN)/pip install --quiet --no-deps --force-reinstall $(SIMD)/*.whl && \
	  $(BIN)/python -c "from PIL import Image; Image.new('RGB', (8, 8)).resize((4, 4))" || \
	  { $(BIN)/pip uninstall --quiet --yes pillow-simd; $(BIN)/pip install --quiet --force-reinstall --no-deps pillow; }; \
	else \
	  echo "Pillow-SIMD does not build here (it needs a C compiler and the headers of libjpeg and zlib)"; \
	fi

demo: install
	$(BIN)/python examples/demo.py $(if $(DATA),--data '$(DATA)')

test: check
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# the documentation as a site: build/docs/index.html
docs: install
	$(BIN)/pip install --quiet --editable '.[docs]'
	@$(MAKE) --no-print-directory pillow-simd
	$(BIN)/python -m sphinx --fail-on-warning --quiet docs build/docs

check: install $(TESTED) tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks examples docs/conf.py docs/picture.py
	cd $(TREE) && $(CURDIR)/$(BIN)/lint-imports $(CURDIR)/pyproject.toml

# the folders by their import names, for tools that do not ask Python where a package lies
tree:
	@rm -rf $(TREE) && mkdir -p $(TREE)
	@cp -r spectral_shards preprocess report shards_manifest train $(TREE)
	@mv $(TREE)/preprocess $(TREE)/report $(TREE)/shards_manifest $(TREE)/train $(TREE)/spectral_shards

format: install $(TESTED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
