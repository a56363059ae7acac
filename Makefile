# make demo : from a fresh clone to a report.   make test : from a fresh clone to green tests.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN := .venv/bin
export OMP_WAIT_POLICY := passive
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Where another environment is active, IPython would mix its packages in.
export VIRTUAL_ENV := $(CURDIR)/.venv

# What Blender's wheel loads, even without a display: shared library and the Debian package that brings it.
LIBRARIES := libX11.so.6:libx11-6 libXrender.so.1:libxrender1 libXxf86vm.so.1:libxxf86vm1 libXfixes.so.3:libxfixes3 libXi.so.6:libxi6 \
	libxkbcommon.so.0:libxkbcommon0 libgomp.so.1:libgomp1 libSM.so.6:libsm6 libGL.so.1:libgl1

.PHONY: install system browser templates demo test check notebooks outputs lab bench readme smoke audit lock clean

install: system .venv/.installed

system:
	@known=$$(/sbin/ldconfig -p); need=(); \
	for pair in $(LIBRARIES); do [[ $$known == *"$${pair%%:*} "* ]] || need+=("$${pair##*:}"); done; \
	if [ $${#need[@]} -eq 0 ]; then exit 0; fi; \
	install="apt-get install -y --no-install-recommends $${need[*]}"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$install -qq >/dev/null; \
	else echo "Blender needs system libraries that are missing here; install them with: sudo $$install" >&2; exit 1; fi

.venv/.installed: requirements.lock pyproject.toml tools/fit_torchvision.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	{ echo "Python 3.11 is needed (Blender's wheel exists for no other version), $(PYTHON) is another: install it, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(BIN)/python tools/fit_torchvision.py
	@touch $@

demo: install
	inspect-lib run 10_render weld_nut_references
	inspect-lib run 10_render weld_nut_stand_in
	inspect-lib run 30_similarity weld_nut
	@echo "Open reports/index.html in a browser."

check: install
	ruff check -q .
	python -m pytest -q tests/check

# Executed in a copy: what the notebooks show must be what they still compute.
notebooks: install
	rm -rf build/nbs && mkdir -p build && cp -r nbs build/nbs
	nbdev-test build/nbs --save --n-workers 2 --do-print
	python tests/check/stored_outputs.py nbs build/nbs

# Execute the notebooks in place and keep what they show.
outputs: install
	TQDM_DISABLE=1 nbdev-test nbs --save --n-workers 2
	nbdev-clean

browser:
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -qq chromium >/dev/null; \
	else echo "Without chromium the browser tests are skipped; install it with: sudo apt-get install -y chromium" >&2; fi

# Two tests at once: most of them wait for processes that they have started.
test: install browser check notebooks
	python -m pytest -n 2 --dist loadscope

lab: install
	JUPYTER_CONFIG_PATH=tools jupyter lab --ServerApp.root_dir=. nbs/index.ipynb

bench: install
	for f in benchmarks/[!_]*.py; do echo "== $$f"; python $$f; done

readme: install
	jupyter nbconvert --log-level ERROR --to markdown --stdout nbs/index.ipynb | sed -e 's#](images/#](nbs/images/#g' -e 's#](\.\./#](#g' > README.md

# params/*/own.yaml, from the parameters cells.
templates: install
	python -c "from inspect_lib.core.paths import workspace; from inspect_lib.run.template import write_templates; write_templates(workspace())"

# The small pictures that git keeps for chapters and default parameters.
smoke: install
	for set in references queries; do inspect-lib run 10_render smoke_$$set; done
	rm -rf data/smoke
	python -c "from inspect_lib.data.folder import *; from inspect_lib.run.store import find_input; \
	[write_folder(read_folder(find_input(f'reports/10_render/smoke_{s}')), f'data/smoke/{s}') for s in ('references', 'queries')]"
	python -c "from inspect_lib.synth.series import write_smoke; write_smoke('data/smoke/anomaly')"
	python -c "from inspect_lib.synth.line import draw_line, write_set; \
	[write_set([draw_line(seed, i, 80, digits) for i in range(n)], f'data/smoke/lines/{name}') \
	for name, seed, n, digits in (('train', 0, 10, 4), ('blank', 1, 5, 0), ('test', 2, 8, 4), ('synthetic', 3, 8, 4))]"

# Known weaknesses of the pinned packages, asked of PyPI. tools/audit.txt names those that do not concern us, each with its reason.
audit:
	[ -x build/audit/bin/pip-audit ] || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install -q pip-audit; }
	build/audit/bin/pip-audit -r requirements.lock --no-deps --disable-pip --strict --progress-spinner off \
		$$(sed -n 's/^\([A-Z][A-Z]*-[^ ]*\).*/--ignore-vuln \1/p' tools/audit.txt)

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install -q torch==$$(sed -n 's/^torch==//p' requirements.lock) '.[dev,track]'
	{ sed -n '/^#/p' requirements.lock; build/lock/bin/pip freeze | grep -v '^inspect' | sed 's/+cpu//' | sort -f; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean:
	rm -rf .venv .cache build reports/*/ reports/index.html
