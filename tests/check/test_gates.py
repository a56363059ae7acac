"""The gates of `make check`: fast, for every commit."""
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from inspect_lib.core.paths import workspace
from inspect_lib.run.params import check_params, declared, read_params
from inspect_lib.run.plan import read_sweep

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FLOORS = [{'core'}, {'data'}, {'synth'}, {'render'}, {'net'}, {'explain', 'judge'}, {'report'}, {'serve'}, {'run'}]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
PIPELINES = sorted((ROOT/'nbs'/'pipelines').glob('[!_]*.ipynb'))
# Larger than a notebook should be: they show noise, which no PNG makes small. A name goes when its notebook shows less
HEAVY = {'00_noise', '01_surface', '02_defect', '04_piece', '06_glyph', '07_stamp', '08_line', '10_pool', '04a_ground',
         '10_detector', '11_pix2pix', '12_synthesis', '20_stamp', '22_compose', '30_similarity', '32_siamese', '40_mix'}


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The notebooks and the library, exported and cleaned again"
    copy = tmp_path_factory.mktemp('copy')
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for name in ('nbs', 'inspect_lib'): shutil.copytree(ROOT/name, copy/name, ignore=ignore)
    shutil.copy(ROOT/'pyproject.toml', copy); shutil.copy(ROOT/'README.md', copy)
    for command in ('nbdev-export', 'nbdev-clean'):
        subprocess.run([BIN/command], cwd=copy, check=True, capture_output=True, timeout=120)
    return copy


def differing(a: Path, b: Path) -> list[str]:
    ignored = {'__pycache__', '.ipynb_checkpoints'}
    names = {p.relative_to(r).as_posix() for r in (a, b) for p in r.rglob('*')
             if p.is_file() and not ignored & set(p.parts)}
    read = lambda path: path.read_bytes() if path.is_file() else None
    return sorted(n for n in names if read(a/n) is None or read(a/n) != read(b/n))


def test_export_changes_nothing(copy): assert differing(ROOT/'inspect_lib', copy/'inspect_lib') == []
def test_clean_changes_nothing(copy): assert differing(ROOT/'nbs', copy/'nbs') == []


def test_parameters_tag_survives_a_clean(copy):
    for path in PIPELINES: assert declared(copy/path.relative_to(ROOT)) == declared(path)


def imports(path: Path):
    "Floors of the package that a module imports from, nbdev having made the imports relative"
    here = path.relative_to(ROOT).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = here[:len(here) - node.level + 1] if node.level else ()
            module = [*above, *(node.module or '').split('.')]
            if module[0] == 'inspect_lib' and len(module) > 1: yield module[1]


@pytest.mark.parametrize('floor', sorted(set().union(*FLOORS)))
def test_imports_go_downwards_only(floor):
    below = set().union(*FLOORS[:next(i for i, rooms in enumerate(FLOORS) if floor in rooms)]) | {floor}
    for path in sorted((ROOT/'inspect_lib'/floor).glob('*.py')): assert set(imports(path)) <= below, path


def test_every_module_stands_on_a_floor():
    folders = {p.parent.name for p in (ROOT/'inspect_lib').glob('*/*.py')}
    assert folders and folders <= set().union(*FLOORS)


@pytest.mark.parametrize('path', sorted(p for p in (ROOT/'params').glob('*/*.yaml') if p.parent.name != 'sweeps'), ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_params_fit_their_notebook(path):
    check_params(read_params(path), declared(ROOT/'nbs'/'pipelines'/f'{path.parent.name}.ipynb'), path)


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT/'params'/'sweeps').glob('*.yaml')))
def test_sweeps_can_be_planned(name):
    assert read_sweep(name, workspace()).steps


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_kept_outputs_name_no_place_and_stay_small(path):
    outputs = [o for c in nbformat.read(path, 4).cells if c.cell_type == 'code' for o in c.outputs]
    noise = [o for o in outputs if o.get('name') == 'stderr']
    assert not noise, 'warnings and progress bars do not belong into kept outputs'
    assert not re.search(r'/tmp/|/home/|/root/|' + re.escape(str(ROOT)), str(outputs))
    assert path.stat().st_size < (1_000_000 if path.stem in HEAVY else 300_000), 'show smaller or fewer pictures'


def test_pipelines_hold_no_exports():
    for path in PIPELINES: assert '#| export' not in path.read_text(), path


def test_readme_is_made_from_the_index():
    command = [BIN/'jupyter', 'nbconvert', '--log-level', 'ERROR', '--to', 'markdown', '--stdout', 'nbs/index.ipynb']
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert made.replace('](images/', '](nbs/images/').replace('](../', '](') == (ROOT/'README.md').read_text()
