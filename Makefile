# make demo   environment, install, and the whole job on the bundled synthetic clips
# make test   environment, install, style, types, and all tests
# make bench  environment, install, and every benchmark (half an hour)
# make docs   environment, install, and the pages in site/
# make results DATA=FOLDER   every result that the README quotes, from real corpora (an hour or two)
# make coverage   the tests once more, with the lines that none of them runs
# make soak   environment, install, and 200,000 clips in one run, watched (ten minutes)
# make clean  forget the environment (features and runs stay)

PYTHON ?= python3
DATA ?= data
VENV := .venv
BIN := $(VENV)/bin
DEMO_FEATURES := artifacts/features/demo
DEMO_RUNS := artifacts/runs/demo
DEMO_CLIPS := artifacts/demo/Actor_01/03-01-01-01-01-01-01.ogg \
	artifacts/demo/Actor_02/03-01-05-02-01-01-02.ogg \
	artifacts/demo/Actor_03/03-01-03-02-02-01-03.ogg

.PHONY: demo test docs results coverage bench soak clean

# A stamp is newer than what it was made from, so an install happens once a change.
$(VENV)/.demo: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m ser_embed.extract --corpus demo --features-dir $(DEMO_FEATURES)
	$(BIN)/python -m ser_embed.train --early-stop --features-dir $(DEMO_FEATURES) --runs-dir $(DEMO_RUNS)
	$(BIN)/python -m ser_embed.predict $(DEMO_CLIPS) --runs-dir $(DEMO_RUNS)

# One thread a process: two test processes that both take every core slow each other down.
test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ser_embed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

results: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[finetune,openvino]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/results.py $(DATA)

coverage: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile \
		--cov ser_embed --cov-report term-missing:skip-covered

bench: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	for name in extraction encoders parity store head scaling latency plot; do \
		$(BIN)/python benchmarks/$$name.py || exit 1; \
	done

soak: $(VENV)/.demo
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf $(VENV)
