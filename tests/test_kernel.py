"""Cells that leave, crash, hang on or never stop printing: every such run fails with the cell's name, in both executors, and nothing of it counts as done."""
import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest

from conftest import BIN, SETTINGS, add_pipeline
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.run.kernel import how_it_died
from inspect_lib.run.output import DISPLAY_LIMIT, TEXT_LIMIT
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.work import new_record, pipeline_notebook
from inspect_lib.sweep.launch import kill_idle_runners, launch

BEGIN = "from inspect_lib.run.work import begin, finish\nrun = begin('95_toy', globals())"
FINISH = "finish(run, dict(n=n), 'Score 1', '<!doctype html><title>toy</title>')"
NUMBERS = itertools.count()
LEAVING = { # What a cell does -> what is said of it
    'import sys; sys.exit(0)': 'ended the notebook by exit()', 'import sys; sys.exit()': 'ended the notebook by exit()',
    'raise SystemExit': 'ended the notebook by exit()', 'raise SystemExit(3)': 'ended the notebook by exit()',
    'import sys; sys.exit("why")': 'ended the notebook by exit()', 'exit()': 'ended the notebook by exit()', 'quit()': 'ended the notebook by exit()',
    'raise KeyboardInterrupt': 'was interrupted', 'import os, signal; os.kill(os.getpid(), signal.SIGINT)': 'was interrupted',
    'import os; os._exit(0)': 'status 0', 'import os; os._exit(3)': 'status 3',
    'import os; os.kill(os.getpid(), 9)': 'when memory runs out', 'import ctypes; ctypes.string_at(0)': 'SIGSEGV', 'import os; os.abort()': 'SIGABRT',
    'raise GeneratorExit': 'GeneratorExit'}


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    "One workspace, so that a runner that survives serves the next case too"
    root = tmp_path_factory.mktemp('toy')
    (root/'settings.ini').write_text(SETTINGS); (root/'requirements.lock').write_text('numpy==2.4.6\n')
    before, os.environ['INSPECT_LIB_ROOT'] = os.environ.get('INSPECT_LIB_ROOT'), str(root)
    yield root
    kill_idle_runners()
    del os.environ['INSPECT_LIB_ROOT']
    if before: os.environ['INSPECT_LIB_ROOT'] = before


def run(root, executor, *cells, again=''):
    "Have a runner of a sweep make one run of these cells; its answer, and the folder of whatever is left"
    name = again or f'a{next(NUMBERS)}'
    if cells: add_pipeline(root, '95_toy', 'n: int = 1  # A number', *cells)
    ws = open_workspace(root)
    declaration = declared(pipeline_notebook('95_toy', ws))
    record = new_record('95_toy', name, check_params(dict(n=int(name[1:])), declaration, 'x'), ws) # Each its own key
    reply = launch(dict(record=record, executor=executor, slots=1))
    left = [p for p in (root/'reports'/'95_toy'/name).glob('[!.]*') if p.is_dir()]
    assert len(left) <= 1
    return reply, next(iter(left), None)


def refused(reply, folder, why, what):
    assert reply['state'] == 'failed' and why in reply['error']['text'], reply
    assert what.split('\n')[0][:40] in reply['error']['text'] or why == 'GeneratorExit', reply # The cell is named
    assert folder.name.startswith('failed-') and json.loads((folder/'run.json').read_text())['error']['cell'] is not None


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
@pytest.mark.parametrize('what', list(LEAVING))
def test_a_cell_that_leaves_fails_the_run(toy, executor, what):
    "After `finish`, where everything seems to be there already; the cell behind it holds a check that must not be skipped"
    if executor == 'kernel' and what not in list(LEAVING)[::3]: pytest.skip('starting a kernel takes time')
    reply, folder = run(toy, executor, BEGIN, FINISH, what, 'raise RuntimeError("the check that must not be skipped")')
    refused(reply, folder, LEAVING[what], what)


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_a_cell_that_leaves_before_finish_and_a_second_try(toy, executor):
    cells, mended = (BEGIN, 'import sys\nif not (run.folder.parents[2]/"mended").exists(): sys.exit(0)', FINISH), toy/'reports'/'mended'
    mended.unlink(missing_ok=True)
    reply, folder = run(toy, executor, *cells)
    refused(reply, folder, 'ended the notebook by exit()', 'import sys')
    mended.touch()
    reply, folder = run(toy, executor, *cells, again=folder.parent.name)
    assert reply['state'] == 'done' and len(folder.name) == 16


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_a_cell_that_is_passed_over_and_a_run_without_finish(toy, executor):
    reply, folder = run(toy, executor, BEGIN, '1')
    assert 'never calls finish' in reply['error']['text'] and folder.name.startswith('failed-')
    add_pipeline(toy, '95_toy', 'n: int = 1  # A number', BEGIN, FINISH)
    nb = nbformat.read(path := toy/'nbs'/'pipelines'/'95_toy.ipynb', 4)
    nb.cells.append(nbformat.v4.new_code_cell('check = 1', metadata=dict(tags=['skip-execution']))); nbformat.write(nb, path)
    if executor == 'in-process': return # It knows no such tag: the cell is executed
    reply, folder = run(toy, executor)
    assert reply['state'] == 'failed' and '(check = 1) was not executed' in reply['error']['text'], reply


THREAD = """import threading, time
def loop():
    while True: time.sleep(.01)
threading.Thread(target=loop, daemon=True, name='recorder').start()"""
PROCESS = """import subprocess
child = subprocess.Popen(['sleep', '600'], start_new_session=True); print(child.pid); (run.folder/'pid.txt').write_text(str(child.pid))"""


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_what_outlives_the_run(toy, executor):
    reply, folder = run(toy, executor, BEGIN, THREAD, FINISH)
    assert reply['state'] == 'failed' and 'recorder' in reply['error']['text'] and 'loop' in reply['error']['text'], reply
    reply, folder = run(toy, executor, BEGIN, FINISH, THREAD.replace('recorder', 'later'))
    if executor == 'in-process': assert 'later' in reply['error']['text'] # Such a kernel is ended, with all of its threads
    else: assert reply['state'] == 'done'
    done = THREAD.replace('while True', 'for _ in range(3)') + '\nthreading.enumerate()[-1].join()'
    assert run(toy, executor, BEGIN, done, FINISH)[0]['state'] == 'done'


def test_a_process_that_a_kernel_leaves_behind_is_ended(toy):
    reply, folder = run(toy, 'kernel', BEGIN, PROCESS, FINISH)
    pid = int((Path(folder)/'pid.txt').read_text())
    for _ in range(100):
        if not Path(f'/proc/{pid}').exists() or Path(f'/proc/{pid}/stat').read_text().split()[2] == 'Z': break
        time.sleep(.05)
    else: os.kill(pid, signal.SIGKILL); raise AssertionError('it is still there')
    assert reply['state'] == 'done'


NOISE = { # Some 20 MB of each
    'prints': 'for i in range(200_000): print("x"*100)', 'one print': 'print("x"*20_000_000)',
    'errors': 'import sys\nfor i in range(200_000): print("x"*100, file=sys.stderr)',
    'past Python': 'import os\nfor i in range(200): os.write(1, b"x"*50_000 + b"\\n"); os.write(2, b"y"*50_000 + b"\\n")',
    'displays': 'from IPython.display import HTML, display\nfor i in range(30): display(HTML("x"*4_000_000))',
    'a value': '"x"*60_000_000', 'warnings': 'import logging\nfor i in range(6_000): logging.getLogger("a").warning("y"*1000)'}


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
@pytest.mark.parametrize('noise', list(NOISE))
def test_what_a_run_prints_has_a_limit(toy, executor, noise):
    if executor == 'kernel' and noise in ('one print', 'errors', 'a value', 'warnings'): pytest.skip('starting a kernel takes time')
    start = time.monotonic()
    reply, folder = run(toy, executor, BEGIN, NOISE[noise], FINISH)
    assert reply['state'] == 'done', reply
    notebook, log = (folder/'notebook.ipynb'), (folder/'log.txt')
    shown = noise in ('displays', 'a value')
    assert notebook.stat().st_size < 1.2*(TEXT_LIMIT + DISPLAY_LIMIT*shown) and log.stat().st_size < 1.3*TEXT_LIMIT
    nbformat.validate(nbformat.read(notebook, 4))
    assert 'Cut here' in notebook.read_text() + log.read_text()
    assert time.monotonic() - start < 40 # Alone it takes some 5 s


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_progress_bars_and_animations_are_kept_as_they_end(toy, executor):
    bar = 'import sys\nfor i in range(20_001): print(f"\\r{i:5d} of 20000", end="", file=sys.stderr, flush=i % 50 == 0)\nprint(file=sys.stderr)'
    film = 'from IPython.display import HTML, clear_output, display\nfor i in range(40): clear_output(); display(HTML(f"{i}" + " "*2_000_000))'
    again = 'from IPython.display import HTML, display\nh = display(HTML("first"), display_id=True)\nfor i in range(5): h.update(HTML(f"update {i}"))'
    reply, folder = run(toy, executor, BEGIN, bar, film, again, FINISH)
    assert reply['state'] == 'done', reply
    cells = {c.source: c.outputs for c in nbformat.read(folder/'notebook.ipynb', 4).cells if c.cell_type == 'code'}
    assert ''.join(o.text for o in cells[bar]) == '20000 of 20000\n'
    assert [o.data['text/html'].strip() for o in cells[film]] == ['39'] and [o.data['text/html'] for o in cells[again]] == ['update 4']


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_a_huge_error_is_shortened(toy, executor):
    reply, folder = run(toy, executor, BEGIN, 'raise ValueError("y"*30_000_000)')
    assert reply['state'] == 'failed' and len(reply['error']['text']) < 10_000
    assert sum(p.stat().st_size for p in folder.iterdir()) < 2_000_000


def test_bare_papermill_and_jupyter_notice_cells_that_did_not_run(toy):
    add_pipeline(toy, '95_toy', 'n: int = 1  # A number', BEGIN, 'check = 1', FINISH)
    code = """import sys, nbformat
from IPython.core.interactiveshell import InteractiveShell
shell, cells = InteractiveShell.instance(), [c.source for c in nbformat.read(sys.argv[1], 4).cells]
for i in map(int, sys.argv[2].split(',')):
    result = shell.run_cell(cells[i], store_history=True)
    if not result.success: sys.exit(str(result.error_in_exec))"""
    notebook = toy/'nbs'/'pipelines'/'95_toy.ipynb'
    def by_hand(order):
        done = subprocess.run([BIN/'python', '-c', code, notebook, order], capture_output=True, text=True, timeout=60, cwd=toy)
        return done.stderr, list(toy.glob('reports/95_toy/unrecorded/*/metrics.json'))
    said, left = by_hand('0,1,2,3')
    assert not said and len(left) == 1
    said, left = by_hand('0,1,3')
    assert "The cell 'check = 1' of 95_toy.ipynb was not executed" in said and not left # Nor the result of the time before


@pytest.mark.parametrize('name', ['w {n}', 'w{seed.__class__}x', 'w{{', 'w}', 'ä b'])
def test_a_workspace_in_a_folder_with_braces(workspace, monkeypatch, name):
    root = workspace/name
    root.mkdir(); (root/'settings.ini').write_text((workspace/'settings.ini').read_text())
    (root/'requirements.lock').write_text('numpy==2.4.6\n')
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(root))
    executor = 'kernel' if name == 'w {n}' else 'in-process'
    try: reply, folder = run(root, executor, BEGIN, FINISH)
    finally: kill_idle_runners()
    assert reply['state'] == 'done' and folder.is_dir() and (folder/'notebook.ipynb').is_file(), reply


def test_a_status_that_is_no_known_signal():
    for status in [*range(-64, 256, 7), None]: assert 'exit' in how_it_died(status) or 'log.txt' in how_it_died(status) or 'memory' in how_it_died(status)


GREEDY = "import subprocess, sys, time\nfrom inspect_lib.run.work import begin, finish\nrun = begin('40_toy', globals())\n"


@pytest.mark.parametrize('cell', ['kept = bytearray(600_000_000); time.sleep(60)',
                                  "child = subprocess.Popen([sys.executable, '-c', 'import time; a = bytearray(600_000_000); time.sleep(60)']); child.wait()"])
def test_a_run_that_takes_too_much_memory_is_ended_with_what_it_started(workspace, cli, cell):
    add_pipeline(workspace, '40_toy', 'n: int = 1  # Any', GREEDY, cell, "finish(run, {}, 'Made.', '<p>')")
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    start = time.monotonic()
    done = cli('run', '40_toy', 'a', INSPECT_LIB_MEMORY='500 MB')
    assert done.returncode == 1 and 'MB; 500 MB are allowed' in done.stderr and f'({cell[:20]}' in done.stderr, done.stderr
    assert time.monotonic() - start < 40
    failed, = (workspace/'reports'/'40_toy'/'a').glob('failed-*')
    assert json.loads((failed/'run.json').read_text())['error']['name'] == 'MemoryLimit'
    done = cli('run', '40_toy', 'a', INSPECT_LIB_MEMORY='lots')
    assert done.returncode == 1 and "Setting 'memory' must be a share such as 80 %" in done.stderr


@pytest.mark.parametrize('metrics, why', [('dict(f1=float("nan"))', 'f1 is nan; a finite number'), ('dict(a=[dict(b=float("inf"))])', 'a[0].b is inf'),
                                          ('dict(f1=object())', 'are no plain data')])
def test_metrics_that_are_no_numbers_are_one_sentence(workspace, cli, metrics, why):
    add_pipeline(workspace, '40_toy', 'n: int = 1  # Any', GREEDY, f"finish(run, {metrics}, 'Made.', '<p>')")
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    done = cli('run', '40_toy', 'a')
    assert done.returncode == 1 and 'The metrics that finish was given' in done.stderr and why in done.stderr and done.stderr.count('\n') == 1, done.stderr
