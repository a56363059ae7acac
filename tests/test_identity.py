"""What makes a run another run, and what does not: files are edited, keys compared; and nothing that runs is missed."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from conftest import ROOT, add_pipeline
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.run import key, package
from inspect_lib.run.key import why
from inspect_lib.run.params import declared
from inspect_lib.run.dependencies import find_dependencies
from inspect_lib.run.work import identify, pipeline_notebook

SHAPE = '''"Shapes"
from functools import lru_cache
from math import pi
LIMIT = 10
UNUSED = 3

class Disc:
    "A disc"
    def __init__(self, r): self.r = r

@lru_cache(8)
def area(r, scale=1):
    "Its area"
    return scale*pi*r**2 # As in school

def unreached(): return UNUSED
'''
MORE = '''from fastcore.basics import patch
from .shape import Disc, area

@patch
def large(self:Disc): return area(self.r) > 3
'''
PARAMETERS = """k: int = 5  # Neighbours
source: 'input' = ''  # Pictures
scene: 'module' = 'firm.shape'  # A plug-in"""
BODY = """from firm.shape import Disc, area, LIMIT
import firm.more
area(k) < LIMIT and Disc(k).large()"""


@pytest.fixture
def firm(workspace):
    "A workspace with a pipeline that uses a package which lies in its root"
    (workspace/'firm').mkdir()
    modules = dict(__init__='', shape=SHAPE, more=MORE, scene='SIZE = 1\ndef draw(): return SIZE\n')
    for name, text in modules.items():
        (workspace/'firm'/f'{name}.py').write_text(text)
    add_pipeline(workspace, '40_toy', PARAMETERS.replace('firm.shape', 'firm.scene'), BODY)
    (workspace/'data'/'x').mkdir(); (workspace/'data'/'x'/'picture').write_text('1')
    return workspace


def look(firm, **params):
    ws = open_workspace(firm)
    defaults = {name: p.default for name, p in declared(pipeline_notebook('40_toy', ws)).items()}
    return identify('40_toy', defaults | dict(source='data/x') | params, ws)


def edit(path: Path, old: str, new: str):
    text = path.read_text()
    assert text.count(old) == 1, f'{old!r} is {text.count(old)} times in {path}'
    path.write_text(text.replace(old, new))


def told(firm, before):
    "Whether the key is another one, and the reasons"
    after = look(firm)
    reasons = why(before['identity'], after['identity'])
    assert bool(reasons) == (before['key'] != after['key'])
    return reasons


@pytest.mark.parametrize('file, old, new', [
    ('shape', '# As in school', '# As Archimedes did'), ('shape', '"Its area"', '"The area, in mm2"'),
    ('shape', 'scale*pi*r**2', 'scale * pi * r**2'), ('shape', 'return UNUSED', 'return UNUSED + 1'),
    ('shape', 'UNUSED = 3', 'UNUSED = 4'), ('shape', 'def unreached', 'def another(): ...\n\ndef unreached'),
    ('shape', 'from math import pi', 'from math import pi, tau'),
])
def test_what_changes_nothing(firm, file, old, new):
    before = look(firm)
    edit(firm/'firm'/f'{file}.py', old, new)
    assert told(firm, before) == []


@pytest.mark.parametrize('file, old, new, reason', [
    ('shape', 'r**2', 'r**3', 'function firm.shape.area changed'),
    ('shape', 'scale=1', 'scale=2', 'function firm.shape.area changed'),
    ('shape', '@lru_cache(8)', '@lru_cache(9)', 'function firm.shape.area changed'),
    ('shape', 'from math import pi', 'from math import tau as pi', 'function firm.shape.area changed'),
    ('shape', 'LIMIT = 10', 'LIMIT = 11', 'function firm.shape.LIMIT changed'),
    ('shape', 'self.r = r', 'self.r = 2*r', 'function firm.shape.Disc changed'),
    ('more', '> 3', '> 4', 'function firm.more.Disc.large changed'),
    ('more', 'Disc, area', 'Disc, area\nDisc.small = 1', 'the import of firm.more is new'),
    ('scene', 'SIZE = 1', 'SIZE = 2', 'function firm.scene.SIZE changed'),
    ('scene', 'def draw', 'def check(): ...\n\ndef draw', 'function firm.scene.check is new'),
])
def test_what_changes_the_key(firm, file, old, new, reason):
    before = look(firm)
    edit(firm/'firm'/f'{file}.py', old, new)
    assert told(firm, before) == [reason]


def test_parameters_inputs_notebook_and_lock(firm):
    before = look(firm)
    other = look(firm, k=7)
    assert why(before['identity'], other['identity']) == ['parameter k changed (5 -> 7)']
    assert other['key'] != before['key']
    (firm/'data'/'y').mkdir(); (firm/'data'/'y'/'picture').write_text('1')
    assert look(firm, source='data/y')['key'] == before['key'], 'where an input lies does not count'
    (firm/'data'/'x'/'picture').write_text('2')
    assert told(firm, before) == ['input source changed']
    (firm/'data'/'x'/'picture').write_text('1'); (firm/'data'/'x'/'more').touch()
    assert told(firm, before) == ['input source changed']
    (firm/'data'/'x'/'more').unlink(); assert told(firm, before) == []
    nb = nbformat.read(path := firm/'nbs'/'pipelines'/'40_toy.ipynb', 4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell('# Prose')); nbformat.write(nb, path)
    assert told(firm, before) == []
    nb.cells[-1].source += '\nprint(k)'; nbformat.write(nb, path)
    assert told(firm, before) == ["the notebook's code changed"]
    (firm/'requirements.lock').write_text('numpy==2.4.7\n')
    assert told(firm, before) == ["the notebook's code changed", 'the lock file changed']


WITHOUT = """import importlib.metadata, sys
known = importlib.metadata.Distribution.discover
hidden = lambda package: package.metadata['Name'].lower() in ('bpy', 'blenderproc')
importlib.metadata.Distribution.discover = lambda **more: (d for d in known(**more) if not hidden(d))
from inspect_lib.cli import main
sys.exit(main())"""


@pytest.mark.parametrize('python', [['-m', 'inspect_lib'], ['-c', WITHOUT]], ids=['with Blender', 'without'])
def test_only_what_a_pipeline_imports_must_be_installed(python, tmp_path):
    "A similarity search starts without Blender; a rendering says what is missing, before anything has begun"
    env = os.environ | dict(INSPECT_LIB_ROOT=str(ROOT), INSPECT_LIB_REPORTS=str(tmp_path), INSPECT_LIB_PARAMS=str(tmp_path))
    for pipeline in ('30_similarity', '10_render'):
        (tmp_path/pipeline).mkdir(); (tmp_path/pipeline/'a.yaml').write_text('{}')
    run = lambda pipeline: subprocess.run([sys.executable, *python, 'run', pipeline, 'a'], cwd=ROOT, env=env, capture_output=True, text=True)
    searched = run('30_similarity')
    assert searched.returncode == 0, searched.stderr
    record = json.loads(next(tmp_path.glob('30_similarity/a/*/run.json')).read_text())
    assert {'numpy', 'torch', 'pillow'} <= set(record['identity']['packages']) and not {'bpy', 'blenderproc'} & set(record['identity']['packages'])
    if python[0] == '-m': return
    refused = run('10_render')
    assert refused.returncode == 1 and 'Traceback' not in refused.stderr
    assert '10_render needs packages that are not installed here: blenderproc, bpy;' in refused.stderr
    assert not list(tmp_path.glob('10_render/a/*/run.json'))


def test_another_version_of_a_package_is_another_run(firm, monkeypatch):
    edit(firm/'firm'/'shape.py', 'from math import pi', 'import numpy\nfrom math import pi')
    before = look(firm)
    assert set(before['identity']['packages']) == {'numpy', 'fastcore'}
    known = package.package_versions
    def others(modules, *what): return known(modules, *what) | dict(numpy='1.0')
    monkeypatch.setattr(key, 'package_versions', others)
    version = before['identity']['packages']['numpy']
    assert told(firm, before) == [f'package numpy changed ("{version}" -> "1.0")']


def test_a_package_that_is_missing_is_named_before_anything_runs(firm, cli):
    edit(firm/'firm'/'shape.py', 'from math import pi', 'import no_such\nfrom math import pi')
    (firm/'params'/'40_toy').mkdir(); (firm/'params'/'40_toy'/'a.yaml').write_text('k: 2\n')
    refused = cli('run', '40_toy', 'a', PYTHONPATH=f'{firm}:{ROOT}')
    assert refused.returncode == 1 and '40_toy needs packages that are not installed here: no_such;' in refused.stderr


def test_the_library_itself(workspace):
    "A copy of the library in the workspace's root takes the place of the installed one"
    ignore = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT/'inspect_lib', workspace/'inspect_lib', ignore=ignore)
    (workspace/'nbs'/'pipelines').mkdir(parents=True)
    shutil.copy(ROOT/'nbs'/'pipelines'/'30_similarity.ipynb', workspace/'nbs'/'pipelines')
    shutil.copytree(ROOT/'data'/'smoke', workspace/'data'/'smoke')
    ws = open_workspace(workspace)
    params = {name: p.default for name, p in declared(pipeline_notebook('30_similarity', ws)).items()}
    before = identify('30_similarity', params, ws)
    assert before == identify('30_similarity', params, open_workspace(workspace))
    edit(workspace/'inspect_lib'/'render'/'station.py', 'def check(', 'def other(): ...\n\ndef check(')
    assert identify('30_similarity', params, ws)['key'] == before['key']
    edit(workspace/'inspect_lib'/'core'/'seed.py', "'little'", "'big'")
    after = identify('30_similarity', params, ws)
    assert why(before['identity'], after['identity']) == ['function core.seed._word changed']
    assert after['key'] != before['key']


TRACE = '''import atexit, inspect, json, os, sys
home, out, seen = ROOT + os.sep, OUT, set()
def note(frame, event, arg):
    code = frame.f_code
    if event == 'call' and code.co_filename.startswith(home + 'inspect_lib') and code.co_flags & inspect.CO_OPTIMIZED:
        seen.add((code.co_filename[len(home):-3].replace(os.sep, '.'), code.co_qualname.split('.')[0]))
def dump():
    sys.setprofile(None)
    with open(f'{out}/{os.getpid()}.json', 'w') as file: json.dump(sorted(seen), file)
atexit.register(dump); sys.setprofile(note)
'''
CELLS = '''import matplotlib; matplotlib.use('Agg')
import nbformat, sys
space = dict(__name__='__main__')
for cell in nbformat.read(sys.argv[1], 4).cells:
    if cell.cell_type == 'code': exec(compile(cell.source, 'cell', 'exec'), space)'''


def called(tmp_path, code, *args) -> list[set[str]]:
    "Functions of ours that some code calls, as Python's profiler sees them: of each process that it starts"
    (tmp_path/'trace').mkdir(); (tmp_path/'seen').mkdir()
    here = f'ROOT, OUT = {str(ROOT)!r}, {str(tmp_path/"seen")!r}\n'
    (tmp_path/'trace'/'sitecustomize.py').write_text(here + TRACE) # Python imports it at its start
    more = dict(PYTHONPATH=str(tmp_path/'trace'), INSPECT_LIB_REPORTS=str(tmp_path/'reports'), TQDM_DISABLE='1')
    done = subprocess.run([sys.executable, '-c', code, *args], cwd=ROOT, env=os.environ | more, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = [json.loads(path.read_text()) for path in (tmp_path/'seen').iterdir()]
    return [{f'{module}.{name}' for module, name in one if not name.startswith('<')} for one in told if one]


def test_nothing_that_runs_is_missed(tmp_path):
    "Every function of ours that a pipeline called had been found before"
    notebook = ROOT/'nbs'/'pipelines'/'30_similarity.ipynb'
    found = find_dependencies([c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == 'code']).functions
    seen, = called(tmp_path, CELLS, notebook)
    assert len(seen) > 80 and seen - set(found) == set()


@pytest.mark.slow
def test_nothing_that_a_render_worker_runs_is_missed(tmp_path):
    code = "from inspect_lib.render.render_set import render_set\n" \
           "import sys; render_set('station', dict(resolution=[64, 64], samples=1), 0, range(1), sys.argv[1])"
    seen = called(tmp_path, code, tmp_path/'frames')
    assert len(seen) == 2 and any('inspect_lib.render.scene.render' in one for one in seen)
    assert set().union(*seen) - set(find_dependencies([code], ['station']).functions) == set()


def test_thousand_runs_are_identified_fast(firm):
    "The bound is generous; the benchmark has the figure"
    ws, seen = open_workspace(firm), {}
    known = declared(pipeline_notebook('40_toy', ws))
    defaults = {name: p.default for name, p in known.items()} | dict(source='data/x')
    identify('40_toy', defaults, ws, seen)
    start = time.perf_counter()
    keys = {identify('40_toy', defaults | dict(k=k), ws, seen)['key'] for k in range(1000)}
    assert len(keys) == 1000 and time.perf_counter() - start < 10


def test_prose_does_not_run_again_and_a_function_does(firm, cli):
    finish = "\nfrom inspect_lib.run.work import begin, finish\nrun = begin('40_toy', globals())\n" \
             "finish(run, dict(area=area(k)), 'Done.', '<!doctype html><title>toy</title>')"
    add_pipeline(firm, '40_toy', PARAMETERS.replace('firm.shape', 'firm.scene'), BODY + finish)
    (firm/'params'/'40_toy').mkdir(); (firm/'params'/'40_toy'/'a.yaml').write_text('k: 2\n')
    path = dict(PYTHONPATH=str(firm))
    assert cli('run', '40_toy', 'a', **path).returncode == 0
    edit(firm/'firm'/'shape.py', '# As in school', '# By heart')
    edit(firm/'firm'/'shape.py', 'UNUSED = 3', 'UNUSED = 4')
    assert 'Already done' in cli('run', '40_toy', 'a', **path).stdout
    edit(firm/'firm'/'shape.py', 'r**2', 'r**3')
    again = cli('run', '40_toy', 'a', **path)
    assert again.returncode == 0 and 'Already done' not in again.stdout
