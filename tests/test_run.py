"""A run is complete or absent: real kernels, kills, full disks, damage, two at once, hostile parameters."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
import yaml
from hypothesis import given, settings, strategies as st

from conftest import BIN, ROOT, add_pipeline, wait_for
from inspect_lib.core.error import UserError
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.run.params import check_params, declared, expect_finite, parse_overrides, plain_yaml
from inspect_lib.run.store import list_runs, verify_run

PARAMETERS = """n: 'int >= 0' = 3  # Files to make
pause: float = 0.0  # Seconds per file
size: int = 10  # Bytes per file
source: 'input' = ''  # Anything
trouble: str = ''  # 'user' or 'bug'"""
BODY = """import time
from inspect_lib.core.error import UserError
from inspect_lib.core.file import atomic
from inspect_lib.run.work import begin, finish
run = begin('40_toy', globals())
for i in range(n):
    if (run.folder/f'{i}.txt').exists(): continue
    time.sleep(pause)
    with atomic(run.folder/f'{i}.txt') as part: part.write_bytes(b'x'*size)
if trouble == 'user' and not (run.folder.parents[2]/'mended').exists():
    raise UserError('Picture 3 is broken; replace it.')
if trouble == 'bug': 1/0
finish(run, dict(n=n), f'{n} files were made.', '<!doctype html><title>toy</title>')"""


@pytest.fixture
def toy(workspace):
    "A workspace with one pipeline, `40_toy`, and one params file, `a`"
    add_pipeline(workspace, '40_toy', PARAMETERS, BODY)
    (workspace/'params'/'40_toy').mkdir()
    (workspace/'params'/'40_toy'/'a.yaml').write_text('n: 3\n')
    return workspace


def runs(toy): return list_runs(open_workspace(toy))
def folder(toy): return toy/'reports'/runs(toy)[0]['path']


def test_same_key_is_not_run_again(toy, cli):
    first = cli('run', '40_toy', 'a')
    assert first.returncode == 0 and '3 files were made.' in first.stdout, first.stderr
    record = verify_run(folder(toy))
    assert record['state'] == 'done' and record['metrics'] == {'n': 3} and record['usage']['peak_memory_mb'] > 10
    assert {'notebook.ipynb', 'metrics.json', 'report.html', 'log.txt', '0.txt'} <= set(record['outputs'])
    assert 'Already done' in cli('run', '40_toy', 'a').stdout
    nb = nbformat.read(path := toy/'nbs'/'pipelines'/'40_toy.ipynb', 4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell('# Prose')); nbformat.write(nb, path)
    assert 'Already done' in cli('run', '40_toy', 'a').stdout
    assert 'Already done' not in cli('run', '40_toy', 'a', '-p', 'n=2').stdout and len(runs(toy)) == 2
    assert (toy/'reports'/'index.html').read_text().count('report.html') == 2


def test_a_changed_input_is_another_run(toy, cli):
    (toy/'data'/'x').mkdir(); (toy/'data'/'x'/'f').write_text('1')
    assert cli('run', '40_toy', 'a', '-p', 'source=data/x').returncode == 0
    (toy/'data'/'x'/'f').write_text('2')
    assert 'Already done' not in cli('run', '40_toy', 'a', '-p', 'source=data/x').stdout
    hashes = {r['inputs']['source']['sha256'] for r in runs(toy)}
    assert len(hashes) == 2 and {r['inputs']['source']['path'] for r in runs(toy)} == {'data/x'}


def test_killed_in_the_middle_goes_on(toy, cli):
    (toy/'params'/'40_toy'/'slow.yaml').write_text('n: 6\npause: 0.4\n')
    process = cli('run', '40_toy', 'slow', wait=False)
    wait_for(lambda: list(toy.glob('reports/40_toy/slow/.work-*/1.txt')))
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert runs(toy)[0]['state'] == 'running'
    process.kill(); process.wait()
    assert [r['state'] for r in runs(toy)] == ['interrupted']
    wait_for(lambda: not any(k.is_running() and k.status() != psutil.STATUS_ZOMBIE for k in kernels), 20)
    kept = next(toy.glob('reports/40_toy/slow/.work-*/0.txt')).stat().st_mtime_ns
    again = cli('run', '40_toy', 'slow')
    assert again.returncode == 0, again.stderr
    assert [r['state'] for r in runs(toy)] == ['done'] and (folder(toy)/'0.txt').stat().st_mtime_ns == kept
    assert not list(toy.glob('reports/40_toy/slow/.work-*'))


def test_interrupted_from_the_keyboard(toy, cli):
    process = cli('run', '40_toy', 'a', '-p', 'n=100', '-p', 'pause=0.2', wait=False)
    wait_for(lambda: list(toy.glob('reports/40_toy/a/.work-*/1.txt')))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode and 'The same command goes on from here' in err and 'Traceback' not in err
    assert runs(toy)[0]['state'] == 'interrupted'


def test_a_task_that_an_interrupt_leaves_behind_is_not_printed():
    "Whether the kernel's death is noticed in time is a race; this is what happens when it is not"
    code = """import asyncio, gc
from jupyter_core.utils import ensure_event_loop
from inspect_lib.run.kernel import _asyncio_to_log
_asyncio_to_log()
async def die(): raise RuntimeError('Kernel died')
async def leave(): asyncio.ensure_future(die()); await asyncio.sleep(.01)
ensure_event_loop().run_until_complete(leave()); gc.collect()"""
    done = subprocess.run([BIN/'python', '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_failure_is_kept_and_never_counts_as_done(toy, cli):
    failed = cli('run', '40_toy', 'a', '-p', 'trouble=user')
    assert failed.returncode == 1 and failed.stderr.strip() == 'inspect-lib: Picture 3 is broken; replace it.'
    record = runs(toy)[0]
    assert record['state'] == 'failed' and record['error']['text'] == 'Picture 3 is broken; replace it.'
    assert 'broken' in (folder(toy)/'notebook.ipynb').read_text() and (folder(toy)/'log.txt').stat().st_size
    (toy/'reports'/'mended').touch()
    assert cli('run', '40_toy', 'a', '-p', 'trouble=user').returncode == 0
    assert [r['state'] for r in runs(toy)] == ['done']


def test_a_bug_keeps_its_traceback(toy, cli):
    failed = cli('run', '40_toy', 'a', '-p', 'trouble=bug')
    assert failed.returncode == 1 and 'ZeroDivisionError' in failed.stderr and runs(toy)[0]['state'] == 'failed'


def test_damaged_run_is_put_aside_and_run_again(toy, cli):
    cli('run', '40_toy', 'a')
    (folder(toy)/'0.txt').write_text('changed')
    verified = cli('verify')
    assert verified.returncode == 1 and '0.txt was changed' in verified.stdout
    again = cli('run', '40_toy', 'a')
    assert again.returncode == 0 and 'kept as damaged-' in again.stderr and cli('verify').returncode == 0
    assert len(list((toy/'reports'/'40_toy'/'a').glob('damaged-*'))) == 1


def test_two_at_once(toy, cli):
    long = ('run', '40_toy', 'a', '-p', 'pause=0.5', '-p', 'n=500') # Longer than the second could ever need to start
    first = cli(*long, wait=False)
    wait_for(lambda: list(toy.glob('reports/40_toy/a/.work-*/0.txt')))
    second = cli(*long)
    assert second.returncode == 1 and 'already in work by another process' in second.stderr
    first.send_signal(signal.SIGINT)
    assert first.wait(60) and runs(toy)[0]['state'] == 'interrupted'


def test_full_disk(toy, cli, tmp_path):
    small = tmp_path/'small'; small.mkdir()
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small]).returncode:
        pytest.skip('a small disk can be mounted by root only')
    try:
        more = dict(INSPECT_LIB_REPORTS=str(small))
        full = cli('run', '40_toy', 'a', '-p', 'size=400000', **more)
        assert full.returncode == 1 and 'the disk is full' in full.stderr and 'Traceback' not in full.stderr
        assert not [p for p in small.glob('40_toy/a/*') if len(p.name) == 16] and not list(small.rglob('*.part'))
        subprocess.run(['mount', '-o', 'remount,size=20m', small], check=True)
        assert cli('run', '40_toy', 'a', '-p', 'size=400000', **more).returncode == 0
        assert cli('verify', **more).returncode == 0
    finally: subprocess.run(['umount', '-l', small])


@pytest.mark.parametrize('text, why', [
    ('m: 3', "unknown parameter 'm'"), ('"n = 1; open(\'/tmp/owned\', \'w\')": 1', 'unknown parameter'),
    ('n: three', 'must be int'), ('n: true', 'must be int'), ('n: 1\nn: 2', 'is there twice'),
    ('n: !!python/name:os.system', 'is refused'), ('n: &a 3', 'anchors'),
    ('n: [', 'no valid YAML'), ('- n', 'must hold lines'),
    ('source: ../../etc', "by '..'"), ('source: /etc/passwd', 'outside the workspace'),
    ('source: data/none', 'does not exist'), ('n: 010', "got '010'"), ('n: 1:30', "got '1:30'"), ('n: 1.5', 'got 1.5'),
    ('pause: .inf', 'pause is inf; a finite number is expected'), ('n: ' + '9'*3000, 'line 1: a whole number of 3000 characters is too large'),
    ('n: ' + '['*100, 'line 1: nested deeper than 32 levels'), ('n: -1', 'must be int >= 0, got -1'),
])
def test_bad_params(toy, cli, text, why):
    (toy/'params'/'40_toy'/'a.yaml').write_text(text)
    refused = cli('run', '40_toy', 'a')
    assert refused.returncode == 1 and why in refused.stderr
    assert refused.stderr.count('\n') <= 8 and 'Traceback' not in refused.stderr
    assert not list((toy/'reports').glob('40_toy/*/*'))


PIPELINES = sorted((ROOT/'nbs'/'pipelines').glob('[0-9]*.ipynb'))
FILE = "references: data/x\nk: 3\nper_class: 5\nencoder: hog-colour\nlabel_map: {pit: defect, 'no': good}\nfalse_accept_rate: 1e-2\nseed: 1\n"


@given(st.integers(0, len(FILE)), st.integers(0, 9), st.text('{}[]:,&*!|>"\'#%@`?- \n\tabxn019._eE~<\x00\ufeff\ud7ffé', max_size=8))
@settings(max_examples=300, deadline=2000)
def test_a_changed_params_file_is_values_or_one_sentence(place, length, piece):
    declaration = declared(ROOT/'nbs'/'pipelines'/'30_similarity.ipynb')
    try:
        values = plain_yaml(FILE[:place] + piece + FILE[place + length:], 'f.yaml')
        if isinstance(values, dict): expect_finite(check_params(values, declaration, 'f.yaml'))
    except UserError as error: assert str(error).startswith('f.yaml') and '\n' not in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize('text', ['{' + ', '.join(f'k{i}: 1' for i in range(20_000)) + '}', '[' + '1, '*20_000 + ']', 'k: ' + 'x'*200_000,
                                  '\n'.join(f'k{i}: [1, 2]' for i in range(10_000)), '{'*100_000, '- '*20_000], ids=range(6))
def test_large_params_take_bounded_time(text):
    start = time.process_time()
    try: plain_yaml(text)
    except UserError as error: assert len(str(error)) < 1000
    assert time.process_time() - start < 20


@pytest.mark.parametrize('path', PIPELINES, ids=lambda p: p.stem)
def test_sizes_of_nothing_are_refused_before_anything_runs(path):
    "Numbers of pictures, steps, pixels and the like, and rates of learning: none may be 0 where that makes nothing"
    known = declared(path)
    for name in ('batch', 'epochs', 'n_frames', 'n_pictures', 'pieces', 'rounds', 'checkpoints', 'learning_rate', 'total', 'repeats', 'n_background'):
        if name not in known: continue
        for value in (-1,) if (name, path.stem) == ('total', '40_mix') else (0, -1): # There, 0 takes all
            with pytest.raises(UserError, match=f"parameter '{name}' must be (int|float) >=? [0-9]+, got"): check_params({name: value}, known)


def test_an_option_given_twice_is_refused():
    assert parse_overrides(['k=1e1', 'seed=~']) == dict(k=10., seed=None)
    with pytest.raises(UserError, match="gives 'k' twice"): parse_overrides(['k=1', 'k=1'])


@pytest.mark.parametrize('args, why', [
    (['run', '40_tyo', 'a'], "Did you mean '40_toy'"), (['run', '40_toy', 'b'], 'no params file'),
    (['run', '40_toy', '../a'], 'may hold letters'), (['run', '40_toy', 'a', '-p', 'n'], 'name=value'),
    (['run', '40_toy', 'a', '-p', 'n=1', '-p', 'n=2'], "-p gives 'n' twice"),
    (['verify', 'reports/40_toy/a'], 'has no finished run'), (['params', 'x'], 'no pipeline'),
])
def test_bad_commands(toy, cli, args, why):
    refused = cli(*args)
    assert refused.returncode == 1 and why in refused.stderr and 'Traceback' not in refused.stderr


def test_an_old_name_of_a_parameter_is_answered_with_its_new_one(workspace, cli):
    add_pipeline(workspace, '40_mix', 'score_threshold: float = .5\nmin_anchor: int = 8', 'pass')
    said = "'least' is called 'score_threshold' since 0.2: rename it in "
    for folder, name, text in (('40_mix', 'old', 'least: 0.4'), ('40_mix', 'new', 'score_threshold: 0.4'),
                               ('sweeps', 'grid', 'steps: {a: {notebook: 40_mix, grid: {least: [0.4, 0.5]}}}'),
                               ('sweeps', 'base', 'steps: {a: {notebook: 40_mix, file: old}}')):
        (workspace/'params'/folder).mkdir(exist_ok=True)
        (workspace/'params'/folder/f'{name}.yaml').write_text(text)
    for args, where in ((['run', '40_mix', 'old'], 'params/40_mix/old.yaml'), (['run', '40_mix', 'new', '-p', 'least=0.3'], 'the options -p'),
                        (['sweep', 'grid'], 'params/sweeps/grid.yaml, step a'), (['sweep', 'base'], 'params/40_mix/old.yaml')):
        refused = cli(*args)
        assert refused.returncode == 1 and said in refused.stderr and f'{where}.' in refused.stderr, refused.stderr
    assert "unknown parameter 'thin'" in cli('run', '40_mix', 'new', '-p', 'thin={}').stderr # This notebook has no 'subsample' either


@pytest.mark.parametrize('module', ['inspect_lib', 'inspect_lib.cli'])
def test_python_m_is_the_command(toy, cli, module):
    env = {k: v for k, v in os.environ.items() if not k.startswith('INSPECT_LIB_')} | dict(INSPECT_LIB_ROOT=str(toy))
    made = subprocess.run([sys.executable, '-m', module, 'run', '40_toy', 'a'], cwd=toy, env=env, capture_output=True, text=True)
    assert made.returncode == 0 and made.stdout.startswith('3 files were made.\nDone: '), made.stderr
    assert cli('run', '40_toy', 'a').stdout == made.stdout.replace('Done', 'Already done')
    refused = subprocess.run([sys.executable, '-m', module, 'run', '40_toy', 'b'], cwd=toy, env=env, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith('inspect-lib: There is no params file')


def test_notebook_without_tag_is_refused(toy, cli):
    nb = nbformat.read(path := toy/'nbs'/'pipelines'/'40_toy.ipynb', 4)
    nb.cells[0].metadata = {}; nbformat.write(nb, path)
    assert "0 cells tagged 'parameters'" in cli('run', '40_toy', 'a').stderr


def test_bare_papermill(toy):
    env = os.environ | {'INSPECT_LIB_ROOT': str(toy)}
    def bare(*args):
        command = [BIN/'papermill', 'nbs/pipelines/40_toy.ipynb', 'out.ipynb', *args]
        return subprocess.run(command, cwd=toy, env=env, capture_output=True, text=True, timeout=120)
    (toy/'p.yaml').write_text(yaml.safe_dump(dict(n=2)))
    assert bare('-f', 'p.yaml').returncode == 0
    made = list(toy.glob('reports/40_toy/unrecorded/*/metrics.json'))
    assert len(made) == 1 and json.loads(made[0].read_text())['metrics'] == {'n': 2} and runs(toy) == []
    wrong = bare('-p', 'n', 'two')
    assert wrong.returncode and 'must be int' in wrong.stderr


def test_input_names_the_newest_run(toy, cli):
    cli('run', '40_toy', 'a')
    assert cli('run', '40_toy', 'a', '-p', 'source=reports/40_toy/a').returncode == 0
    first, second = sorted(runs(toy), key=lambda r: bool(r['inputs']))
    assert second['inputs']['source']['path'] == f"reports/{first['path']}"
    shutil.rmtree(toy/'reports'/first['path']); shutil.rmtree(toy/'reports'/second['path'])
    with pytest.raises(UserError, match='has no finished run'):
        from inspect_lib.run.store import find_input
        find_input('reports/40_toy/a', open_workspace(toy))
