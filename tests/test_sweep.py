"""Sweeps from end to end: plan, parallel runs, limits, failures, interrupts, two launchers, other machines, table and report."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from conftest import BIN, SETTINGS, add_pipeline, run_cells, wait_for
from inspect_lib.core.error import UserError
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.cli import main
from inspect_lib.run.executor import run_pipeline
from inspect_lib.report.setting import Comparison, settings as ranked_settings
from inspect_lib.sweep.grid import plan_sweep
from inspect_lib.sweep.plan import COLUMNS, SCHEMA, read_sweep
from inspect_lib.run.store import list_runs, verify_run
from inspect_lib.sweep.search import metric_of
from inspect_lib.sweep.table import table

ROOT = Path(__file__).parents[1]
PARAMETERS = """x: float = 1.0  # A number
k: int = 1  # Another
word: str = ''  # A text
pause: float = 0.0  # Seconds
megabytes: int = 0  # To be held
trouble: str = ''  # 'user', 'bug', 'once' or 'hang'
source: 'input' = ''  # Anything
seed: int = 0"""
BODY = """import os, sys, time
from inspect_lib.core.error import UserError
from inspect_lib.core.file import atomic
from inspect_lib.sweep.search import tell_progress
from inspect_lib.run.work import begin, finish
run = begin('41_sum', globals())
root = run.folder.parents[2].parent"""
WORK = """held = bytearray(megabytes*2**20)
for step in range(3):
    tell_progress(run.folder, step, -abs(x - 3)); time.sleep(pause/3)
if trouble == 'user': raise UserError('Picture 3 is broken; replace it.')
if trouble == 'bug': 1/0
if trouble == 'hang': time.sleep(600)
if trouble == 'once' and not (root/'seen').exists(): (root/'seen').touch(); raise OSError('The camera was away.')"""
END = """with atomic(run.folder/'sum.txt') as part: part.write_text(f'{x} {k} {word} {seed}')
with open(root/'made.log', 'a') as log: log.write(f'{run.record["key"]}\\n')
score = 1/(1 + (x - 3)**2) + seed/100
finish(run, dict(score=dict(value=score, low=score - .1, high=score + .1), threads=int(os.environ.get('OMP_NUM_THREADS', 0))),
       f'{x + k} came out.', '<!doctype html><title>sum</title>')"""


@pytest.fixture
def sums(workspace):
    "A workspace with one pipeline, `41_sum`"
    add_pipeline(workspace, '41_sum', PARAMETERS, BODY, WORK, END)
    (workspace/'params'/'sweeps').mkdir()
    (workspace/'params'/'41_sum').mkdir()
    return workspace


@pytest.fixture
def here(sums, monkeypatch, capsys):
    "The command line without a process of its own: everything else is as real, and a test is seconds shorter"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(sums))
    def run(*args, **more):
        for name, value in more.items(): monkeypatch.setenv(name, value)
        code, said = main(list(args)), capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)
    return run


def yaml_of(spec) -> str:
    "Flow style; whole numbers of any length"
    limit = sys.get_int_max_str_digits(); sys.set_int_max_str_digits(0)
    try: return re.sub(r'\b(Infinity|NaN)\b', lambda m: {'Infinity': '.inf', 'NaN': '.nan'}[m[1]], json.dumps(spec))
    finally: sys.set_int_max_str_digits(limit)


def write(root, name='s', **sweep):
    "A sweep's file"
    spec = dict(executor='in-process') | sweep
    spec['steps'] = {key: dict(notebook='41_sum') | step for key, step in spec['steps'].items()}
    (root/'params'/'sweeps'/f'{name}.yaml').write_text(yaml_of(spec))


def state(root, name='s'): return table(name, open_workspace(root)).state.value_counts().to_dict()
def tree(root): return {p: p.stat().st_mtime_ns for p in (root/'reports').rglob('*') if p.is_file() and p.name != 'index.html'}


def test_a_graph_of_steps_and_the_same_command_again(sums, here):
    write(sums, steps=dict(first=dict(grid=dict(k=[1, 2])), also=dict(needs=dict(source='first'), grid=dict(x=[1., 2.]), repeat=2)),
          report=dict(metric='score', axes=['x']))
    planned = here('sweep', 's', '--dry-run').stdout
    assert '2 runs, 0 done' in planned and 'planned when first 1 is there' in planned and 'not known yet' in planned
    done = here('sweep', 's')
    assert done.returncode == 0 and '10 runs: 10 done; 10 made just now.' in done.stdout, done.stderr
    found = table('s', open_workspace(sums))
    assert len(found) == 10 and (found.state == 'done').all() and found['metrics.threads'].max() <= max(1, os.cpu_count()//2)
    assert set(found[found.step == 'also']['params.source']) == {f'reports/41_sum/s/{key}' for key in found[found.step == 'first'].key}
    assert set(found['params.seed']) == {0, 1}
    page = (sums/'reports'/'sweeps'/'s'/'report.html').read_text()
    assert 'The best of 4 settings is' in page and 'Comparison of 8 runs' in page # Of the last step as the file names them
    before = tree(sums)
    again = here('sweep', 's')
    assert '10 done; 0 made just now' in again.stdout and tree(sums) == before
    assert 'Nothing is left to do.' in here('sweep', 's', '--dry-run').stdout
    assert here('verify').returncode == 0 and 'sweeps/s/report.html' in (sums/'reports'/'index.html').read_text()
    assert pd.read_parquet(sums/'reports'/'sweeps'/'s'/'table.parquet').key.tolist() == found.key.tolist()


def test_a_last_step_gathers_all_runs_of_another(sums, here):
    add_pipeline(sums, '43_all', "runs: 'list[input]' = []  # Finished runs", """import json
from inspect_lib.run.work import begin, finish
run = begin('43_all', globals())
scores = [json.loads((place/'metrics.json').read_text())['metrics']['score']['value'] for place in run.all_of('runs')]
finish(run, dict(n=len(scores), best=max(scores)), 'All.', '<!doctype html><title>all</title>')""")
    write(sums, steps=dict(each=dict(grid=dict(x=[1., 3.], k=[1, 2])), last=dict(notebook='43_all', needs=dict(runs='each'))))
    assert 'planned when each 1, each 2, each 3 and each 4 are there' in here('sweep', 's', '--dry-run').stdout
    done = here('sweep', 's')
    assert '5 runs: 5 done; 5 made just now.' in done.stdout, done.stderr
    last = next((sums/'reports'/'43_all'/'s').glob('*/'))
    assert json.loads((last/'metrics.json').read_text())['metrics'] == dict(n=4, best=1.)
    record = json.loads((last/'run.json').read_text())
    assert list(record['inputs']) == [f'runs[{i}]' for i in range(4)] and len(record['params']['runs']) == 4
    assert '5 done; 0 made just now' in here('sweep', 's').stdout
    write(sums, steps=dict(each=dict(grid=dict(x=[1., 2.], k=[1, 2])), last=dict(notebook='43_all', needs=dict(runs='each'))))
    assert '5 done; 3 made just now' in here('sweep', 's').stdout # Two are new, and so is what stands on them
    assert here('verify').returncode == 0


def test_the_dry_run_says_why_not(sums, here):
    write(sums, steps=dict(a=dict(grid=dict(k=[1]))))
    assert 'has not been run before' in here('sweep', 's', '--dry-run').stdout
    assert here('sweep', 's').returncode == 0
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2]))))
    planned = here('sweep', 's', '--dry-run').stdout
    assert 'parameter k changed (1 -> 2)' in planned and '2 runs, 1 done' in planned and 'about' in planned
    add_pipeline(sums, '41_sum', PARAMETERS, BODY, WORK, END.replace('/100', '/99'))
    assert "the notebook's code changed" in here('sweep', 's', '--dry-run').stdout


def test_a_run_by_hand_is_the_same_run(sums, here):
    (sums/'params'/'41_sum'/'hand.yaml').write_text('k: 2\n')
    assert here('run', '41_sum', 'hand').returncode == 0
    write(sums, executor='kernel', steps=dict(plain=dict(file='hand'), a=dict(grid=dict(k=[2, 3]))))
    assert '3 runs: 3 done; 1 made just now' in here('sweep', 's').stdout
    assert len((sums/'made.log').read_text().split()) == 2
    (sums/'params'/'41_sum'/'other.yaml').write_text('k: 3\n')
    assert 'Already done: reports/41_sum/other/' in here('run', '41_sum', 'other').stdout and here('verify').returncode == 0
    assert len((sums/'made.log').read_text().split()) == 2


@pytest.mark.parametrize('named', ['data/own', 'data/own/a.txt'])
def test_runs_whose_parameters_name_files_and_folders(sums, here, named):
    "They are in the key, and no reason to take the code for another"
    (sums/'data'/'own').mkdir(); (sums/'data'/'own'/'a.txt').write_text('one')
    write(sums, steps={'s': dict(notebook='41_sum', params=dict(word=named), grid=dict(k=[1, 2]))}, report=dict(step='s', metric='score'))
    assert here('sweep', 's').returncode == 0 and state(sums) == dict(done=2)
    (sums/'data'/'own'/'a.txt').write_text('two')
    assert '2 made just now' in here('sweep', 's').stdout and len(list_runs(open_workspace(sums))) == 4


def test_failures_leave_the_rest_alone_and_are_shown(sums, here):
    write(sums, steps=dict(a=dict(list=[dict(k=1), dict(trouble='bug'), dict(trouble='user')]), b=dict(needs=dict(source='a'))),
          report=dict(step='a', metric='score'), retries=1)
    failed = here('sweep', 's')
    assert failed.returncode == 1 and state(sums) == dict(done=2, failed=2, blocked=2), failed.stdout + failed.stderr
    assert 'Picture 3 is broken; replace it.' in failed.stdout and 'Traceback' not in failed.stderr
    page = (sums/'reports'/'sweeps'/'s'/'report.html').read_text()
    assert 'ZeroDivisionError' in page and 'if trouble == &#39;bug&#39;: 1/0' in page
    bug = next(r for r in list_runs(open_workspace(sums)) if r['state'] == 'failed' and r['params']['trouble'] == 'bug')
    assert [a['name'] for a in bug['attempts']] == ['ZeroDivisionError'] # It was tried twice, and the reason is kept
    kept = sums/'reports'/bug['path']
    assert (kept/'notebook.ipynb').exists() and (kept/'log.txt').stat().st_size
    user = next(r for r in list_runs(open_workspace(sums)) if r['state'] == 'failed' and r['params']['trouble'] == 'user')
    assert 'attempts' not in user # What the user has to mend is not tried again


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_a_retry_that_helps_is_recorded(sums, here, executor):
    write(sums, executor=executor, retries=2, steps=dict(a=dict(params=dict(trouble='once'))))
    done = here('sweep', 's')
    assert done.returncode == 0, done.stdout
    record = verify_run(sums/'reports'/list_runs(open_workspace(sums))[0]['path'])
    assert [a['text'] for a in record['attempts']] == ['The camera was away.']


@pytest.mark.parametrize('executor', ['in-process', 'kernel'])
def test_limits(sums, here, executor):
    write(sums, executor=executor, timeout_s=12, memory_mb=1000, workers=1,
          steps=dict(a=dict(list=[dict(trouble='hang'), dict(megabytes=1500, pause=5.), dict(k=3)])), report=dict(metric='score'))
    assert here('sweep', 's').returncode == 1
    errors = sorted(table('s', open_workspace(sums)).error.dropna())
    assert len(errors) == 2 and errors[0].startswith('MemoryLimit: It needed') and errors[1] == 'TimeOut: It took longer than 12 s.'
    page = (sums/'reports'/'sweeps'/'s'/'report.html').read_text()
    assert page.count('time.sleep(600)') == 2 # Both stopped in the cell that is shown


def test_fail_fast(sums, here):
    write(sums, workers=1, steps=dict(a=dict(list=[dict(trouble='bug'), *(dict(k=k) for k in range(3))])))
    assert here('sweep', 's', '--fail-fast').returncode == 1
    assert state(sums) == dict(failed=1, waiting=3)


def test_interrupted_once_and_twice(sums, cli):
    write(sums, workers=2, steps=dict(a=dict(grid=dict(k=list(range(6))), params=dict(pause=3.))))
    process = cli('sweep', 's', wait=False)
    wait_for(lambda: len(list(sums.glob('reports/41_sum/s/.work-*/progress.jsonl'))) == 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and 'goes on from here' in out and 'Traceback' not in err, err
    assert state(sums) == dict(done=2, waiting=4) # Those that ran were finished
    write(sums, workers=2, steps=dict(a=dict(grid=dict(k=list(range(6))), params=dict(pause=60.))))
    process = cli('sweep', 's', wait=False)
    wait_for(lambda: len(list(sums.glob('reports/41_sum/s/.work-*/progress.jsonl'))) == 2)
    process.send_signal(signal.SIGINT); time.sleep(1); process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and time.monotonic() - start < 50 and 'Traceback' not in err
    assert state(sums) == dict(interrupted=2, waiting=4) and not list(sums.glob('reports/41_sum/s/failed-*'))


def test_two_launchers_share_a_sweep(sums, cli):
    write(sums, workers=2, steps=dict(a=dict(grid=dict(k=list(range(6))), params=dict(pause=.6)), b=dict(needs=dict(source='a'))))
    both = [cli('sweep', 's', wait=False) for _ in range(2)]
    outs = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    made = (sums/'made.log').read_text().split()
    assert len(made) == len(set(made)) == 12 and state(sums) == dict(done=12)


def test_random_and_search(sums, here):
    ranges = dict(x=dict(low=0., high=6.), word=['a', 'b'])
    write(sums, workers=3, steps=dict(draws=dict(random=dict(n=4, ranges=ranges)), search=dict(params=dict(k=2), optuna=dict(
        trials=8, objective='score', ranges=ranges, batch=2))), report=dict(metric='score'))
    assert here('sweep', 's').returncode == 0
    first = table('s', open_workspace(sums))
    assert first.step.value_counts().to_dict() == dict(search=8, draws=4) and first['params.x'].between(0, 6).all()
    again = here('sweep', 's', '--workers', '1')
    assert '0 made just now' in again.stdout and table('s', open_workspace(sums)).equals(first)
    write(sums, steps=dict(draws=dict(random=dict(n=4, ranges=ranges)), search=dict(params=dict(k=2), optuna=dict(
        trials=10, objective='score', ranges=ranges, batch=2))), report=dict(metric='score'))
    assert '2 made just now' in here('sweep', 's').stdout # A longer search goes on from the shorter one


def test_bad_trials_are_pruned(sums, here):
    write(sums, workers=2, steps=dict(search=dict(params=dict(pause=3.), optuna=dict(
        trials=12, objective='score', ranges=dict(x=dict(low=0., high=60.)), batch=4, prune=True))), report=dict(metric='score'))
    assert here('sweep', 's').returncode == 0
    found = state(sums)
    assert found.get('pruned', 0) >= 1 and sum(found.values()) == 12 and set(found) == {'done', 'pruned'}
    assert '0 made just now' in here('sweep', 's').stdout and state(sums) == found


def test_a_damaged_run_is_made_again(sums, here):
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2]))))
    here('sweep', 's')
    next(sums.glob('reports/41_sum/s/*/sum.txt')).write_text('changed')
    assert 'it is damaged' in here('sweep', 's', '--dry-run').stdout
    assert '1 made just now' in here('sweep', 's').stdout and here('verify').returncode == 0


def test_texts_that_a_spreadsheet_would_calculate(sums, here):
    write(sums, steps=dict(a=dict(grid=dict(word=['=1+1', '@x', '-3', 'fine']))))
    assert here('sweep', 's').returncode == 0
    text = pd.read_csv(sums/'reports'/'sweeps'/'s'/'table.csv')
    assert text['params.word'].tolist() == ["'=1+1", "'@x", "'-3", 'fine'] and text['params.x'].dtype == float


def test_the_table_can_be_read_while_it_runs(sums, cli):
    write(sums, workers=1, steps=dict(a=dict(grid=dict(k=[1, 2, 3]), params=dict(pause=300.)))) # Longer than any table takes
    process = cli('sweep', 's', wait=False)
    wait_for(lambda: list(sums.glob('reports/41_sum/s/.work-*/progress.jsonl')))
    assert state(sums).get('running') == 1
    told = cli('table', 's')
    assert told.returncode == 0 and 'running' in told.stdout and 'not finished' in (sums/'reports'/'sweeps'/'s'/'report.html').read_text()
    process.send_signal(signal.SIGINT); time.sleep(1); process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130 and state(sums) == dict(interrupted=1, waiting=2)


def test_accelerators_are_given_to_one_run_at_a_time(sums, here):
    add_pipeline(sums, '41_sum', PARAMETERS, BODY, WORK, "word = os.environ.get('CUDA_VISIBLE_DEVICES')\nlog = open(root/'gpu.log', 'a')",
                 "print(word, time.time(), file=log); time.sleep(.5); print(word, time.time(), file=log, flush=True)", END)
    write(sums, workers=3, gpus=1, steps=dict(a=dict(grid=dict(k=list(range(6))))))
    done = here('sweep', 's', CUDA_VISIBLE_DEVICES='4,7')
    assert done.returncode == 0, done.stdout
    used = pd.DataFrame([line.split() for line in (sums/'gpu.log').read_text().splitlines()], columns=['gpu', 'at']).astype(dict(at=float))
    assert set(used.gpu) == {'4', '7'}
    for _, times in used.groupby('gpu'): # In, out, in, out: never two at once
        pairs = times['at'].to_numpy().reshape(-1, 2)
        assert (pairs[1:, 0] >= pairs[:-1, 1]).all()


@pytest.mark.parametrize('change, why', [
    (dict(steps={}), 'should be non-empty'), (dict(stepps=1), "unknown name 'stepps'. Did you mean 'steps'"),
    (dict(steps=dict(a=dict(grid=dict(kk=[1])))), "unknown parameter 'kk'"), (dict(steps=dict(a=dict(grid=dict(k=['x'])))), 'must be int'),
    (dict(steps=dict(a=dict(needs=dict(source='b')))), 'no earlier step'), (dict(steps=dict(a=dict(params=dict(source='../x')))), "by '..'"),
    (dict(steps=dict(a=dict(notebook='42_sum'))), "Did you mean '41_sum'"), (dict(executor='thread'), 'is not one of'),
    (dict(steps=dict(a=dict(random=dict(n=2, ranges=dict(x=dict(low=2, high=1)))))), 'upside down'),
    (dict(steps=dict(a=dict(params=dict(source='data/none')))), 'does not exist'),
    (dict(steps=dict(a=dict(grid=dict(k=[])))), 'steps.a.grid.k: [] should be non-empty'), (dict(steps=dict(a=dict(repeat=0))), 'repeat: 0 is less than'),
    (dict(steps=dict(a=dict(grid=dict(k=[1, 2, 1.])))), "'k' has 1 twice"), (dict(steps=dict(a=dict(seeds=[0, 1, 0]))), 'seeds has 0 twice'),
    (dict(steps=dict(a=dict(list=[dict(x=1), dict(x=1.)]))), 'list has {"x": 1.0} twice'),
    (dict(steps=dict(a=dict(zip=dict(x=[1, 1], k=[2, 2])))), 'zip has'), (dict(steps=dict(a=dict(grid=dict(x=['1'])))), 'must be float'),
    (dict(steps=dict(a=dict(random=dict(n=3, ranges=dict(k=dict(low=0, high=1)))))), 'draws 3 settings, and its ranges hold 2'),
    (dict(steps=dict(a=dict(random=dict(n=3, ranges=dict(word=dict(low=0, high=1)))))), 'list its values in place of low and high'),
    (dict(steps=dict(a=dict(random=dict(n=3, ranges=dict(k=dict(low=.5, high=2)))))), 'must be int, got 0.5'),
    (dict(steps=dict(a=dict(optuna=dict(trials=3, objective='score', ranges=dict(k=dict(low=2, high=1)))))), 'upside down'),
    (dict(steps=dict(a=dict(optuna=dict(trials=0, objective='score', ranges=dict(k=[1]))))), 'trials: 0 is less than'),
    (dict(steps=dict(a=dict(optuna=dict(trials=3, objective='score', ranges=dict(k=[1, 1]))))), "'k' has 1 twice"),
    (dict(steps=dict(a=dict(grid={name: list(range(1000)) for name in ('k', 'megabytes', 'seed')}))), 'makes 1000000000 runs'),
    (dict(steps=dict(a=dict(repeat=10**12))), "raise 'max_runs'"), (dict(steps=dict(a=dict(repeat=10**30))), 'too large'),
    (dict(steps=dict(a=dict(repeat=200), b=dict(repeat=200, needs=dict(source='a')))), 'makes 40000 runs'),
    (dict(report=dict(metric='score', axes=['kk'])), "unknown parameter 'kk'"), (dict(report=dict(metric='k')), 'called like the metric'),
    (dict(report=dict(metric='score', axes=['k', 'k'])), 'has non-unique elements'), (dict(report=dict(metric='score', required=float('inf'))), 'report.required'),
    (dict(steps=dict(a=dict(optuna=dict(trials=3, objective='score.value', ranges=dict(k=[1, 2])))), report=dict(metric='score', direction='minimize')),
     "'score' is to minimize here, and step 'a' searches to maximize it"),
])
def test_bad_files(sums, here, change, why):
    write(sums, **dict(dict(steps=dict(a=dict(grid=dict(k=[1])))), **change))
    for more in ((), ('--dry-run',)):
        refused = here('sweep', 's', *more)
        assert refused.returncode == 1 and why in refused.stderr and 'Traceback' not in refused.stderr, refused.stderr
    assert not (sums/'reports'/'sweeps').exists() and not list(sums.glob('reports/41_sum/*/*'))


CONFIG = "config: dict = {}\nn: int = 1\nstate: str = ''\nx: float = 0.\nflag: bool = False\nseed: int = 0"
CONFIGURED = """from inspect_lib.run.work import begin, finish
run = begin('44_config', globals())
if n > 2: raise ValueError('This setting does not work.')
finish(run, dict(value=x, text='x', nothing=None), 'Done.', '<!doctype html><title>c</title>')"""


@pytest.fixture
def configs(sums):
    "A second pipeline, with a config, and with parameters called like columns of the report"
    add_pipeline(sums, '44_config', CONFIG, CONFIGURED)
    return sums


@pytest.mark.parametrize('name', COLUMNS)
def test_an_axis_called_like_a_column_is_refused(configs, name):
    add_pipeline(configs, '45_columns', f'{name}: int = 0\nseed: int = 0', 'pass')
    for axis in (dict(grid={name: [1, 2]}), dict(zip={name: [1]}), dict(list=[{name: 1}]), dict(random=dict(n=1, ranges={name: [1, 2]})),
                 dict(optuna=dict(trials=2, objective='f1', ranges={name: [1, 2]}))):
        write(configs, steps=dict(a=axis | dict(notebook='45_columns')), report=dict(metric='f1'))
        with pytest.raises(UserError, match=f"s.yaml, step a: an axis cannot be called '{name}'"): read_sweep('s', open_workspace(configs))
    write(configs, steps=dict(a=dict(notebook='45_columns', params={name: 1}, repeat=2)))
    assert len(plan_of(configs)['a']) == 2 # A parameter that no axis changes is no column


@pytest.mark.parametrize('where, place', [('params', 'config.camera[1].fov is inf'), ('grid', 'config.camera[1].fov is inf')])
def test_numbers_that_are_none_are_named_with_their_place(configs, where, place):
    config = dict(samples=1, camera=[dict(fov=1.), dict(fov=float('inf'))])
    write(configs, steps=dict(a={'notebook': '44_config', where: dict(config=[config] if where == 'grid' else config)}))
    with pytest.raises(UserError, match='steps.a.*fov is inf; a finite number'): plan_of(configs)
    (configs/'params'/'44_config').mkdir()
    (configs/'params'/'44_config'/'y.yaml').write_text('config: {samples: 1, camera: [{fov: 1.}, {fov: .inf}]}\n')
    with pytest.raises(UserError, match=re.escape(f'y.yaml: {place}; a finite number is expected')): run_pipeline('44_config', 'y', ws=open_workspace(configs))
    assert not list(configs.glob('reports/44_config/*/*'))


def plan_of(root): return plan_sweep(read_sweep('s', open_workspace(root)))


@pytest.mark.parametrize('kind', ['random', 'optuna'])
def test_a_range_has_the_type_of_its_parameter(sums, here, kind):
    spec = dict(random=dict(n=6), optuna=dict(trials=6, objective='score'))[kind] | dict(ranges=dict(x=dict(low=0, high=1), k=dict(low=1., high=1e1)))
    write(sums, steps=dict(a={kind: spec}))
    assert here('sweep', 's').returncode == 0
    found = table('s', open_workspace(sums))
    assert found['params.x'].between(0, 1, inclusive='neither').all() and found['params.x'].nunique() == 6
    assert found['params.k'].dtype == 'int64' and found['params.k'].between(1, 10).all()


def test_equal_values_are_one_run_however_they_are_written(sums, here):
    write(sums, steps=dict(a=dict(grid=dict(x=[1], k=[1e0])), b=dict(params=dict(x=1., k=1))))
    assert '2 runs: 2 done; 1 made just now' in here('sweep', 's').stdout


def test_a_searched_metric_that_is_not_there_ends_the_search_after_the_first_trial(sums, here):
    ranges = dict(x=dict(low=0., high=6.))
    write(sums, workers=1, steps=dict(a=dict(optuna=dict(trials=8, objective='scoer', ranges=ranges))), report=dict(metric='score'))
    for _ in range(2): # The second time, all that was made is there
        failed = here('sweep', 's')
        assert failed.returncode == 1 and "a: There is no number 'scoer' among the metrics. Did you mean 'score" in failed.stdout, failed.stdout
        assert len((sums/'made.log').read_text().split()) == 1 and state(sums) == dict(done=1, waiting=3)
    page = (sums/'reports'/'sweeps'/'s'/'report.html').read_text()
    assert 'search a' in page and 'scoer' in page
    write(sums, workers=1, steps=dict(a=dict(optuna=dict(trials=8, objective='score', ranges=ranges))), report=dict(metric='score'))
    assert '8 done; 7 made just now' in here('sweep', 's').stdout


@pytest.mark.parametrize('name, why', [('nothing', 'is None'), ('text', "is 'x'")])
def test_a_metric_that_is_no_number_ends_the_search(configs, here, name, why):
    write(configs, steps=dict(a=dict(notebook='44_config', optuna=dict(trials=30, max_failures=3, batch=1, objective=name, ranges=dict(x=dict(low=0, high=1))))))
    failed = here('sweep', 's')
    assert failed.returncode == 1 and f"a: 3 trials in a row failed, the last one so: The metric '{name}' {why}" in failed.stdout
    assert state(configs) == dict(done=3)


def test_a_report_of_a_number_that_no_run_left_says_so(sums, here):
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2]))), report=dict(metric='scoer'))
    assert "report: No run of step 'a' has left a finite number 'scoer'." in here('sweep', 's').stdout
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2]))), report=dict(metric='score'))
    assert 'has left' not in here('sweep', 's').stdout


def test_what_is_no_number_in_some_runs_is_compared_as_missing():
    values = [True, [1], None, 'x', 0.5, 10**400, float('inf'), np.float32(2)]
    runs = pd.DataFrame({'params.k': range(8), 'state': 'done', 'metrics.value': pd.Series(values, dtype=object)})
    ranked = ranked_settings(runs, Comparison('value', ('k',)))
    assert ranked.value.tolist() == [2, .5] and ranked.k.tolist() == [7, 4]
    assert [metric_of(dict(value=v), 'value') for v in values[:-1]] == [None]*4 + [.5] + [None]*2


def test_failed_settings_are_not_proposed_again(sums, here):
    write(sums, steps=dict(a=dict(params=dict(trouble='user'), optuna=dict(trials=30, objective='score', ranges=dict(k=[1, 2, 3])))))
    failed = here('sweep', 's')
    assert failed.returncode == 1 and state(sums) == dict(failed=3)
    assert 'a: None of the 3 settings that the ranges hold has left a number; the last one: UserError: Picture 3 is broken' in failed.stdout
    write(sums, steps=dict(a=dict(optuna=dict(trials=30, objective='score', ranges=dict(k=[1, 2, 3])))))
    done = here('sweep', 's')
    assert done.returncode == 0 and 'No setting of the ranges is left to be tried after 3 of 30 trials.' in done.stdout
    assert '3 runs: 3 done' in done.stdout and 'Nothing is left' not in done.stderr


def test_a_sweep_over_seeds_is_one_though_the_config_names_a_seed(sums, monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(sums))
    shutil.copy(ROOT/'nbs'/'pipelines'/'10_render.ipynb', sums/'nbs'/'pipelines')
    (sums/'data'/'c.json').write_text('{"random_seed": 0}')
    given = dict(use_case='inspect_lib.render.floating', config_file='data/c.json')
    write(sums, steps=dict(a=dict(notebook='10_render', params=given, seeds=[0, 1, 2]), b=dict(notebook='10_render', params=given, repeat=2)))
    plan = plan_of(sums)
    assert [run.values['seed'] for run in plan['b']] == [0, 1]
    digests = [run_cells('10_render', sums, 'make_plan(', **run.values)['plan'].digest for run in plan['a']]
    assert len(set(digests)) == 3


VALID = dict(title='t', workers=2, max_runs=500, steps=dict(
    first=dict(notebook='41_sum', params=dict(x=1.5), grid=dict(k=[1, 2], word=['a', 'b']), repeat=2),
    second=dict(notebook='41_sum', needs=dict(source='first'), random=dict(n=3, seed=1, ranges=dict(x=dict(low=0, high=1), k=[1, 2]))),
    third=dict(notebook='41_sum', zip=dict(x=[1, 2], k=[3, 4]), seeds=[1, 2], list=[dict(pause=0.), dict(pause=1.)]),
    fourth=dict(notebook='41_sum', optuna=dict(trials=4, objective='score', ranges=dict(x=dict(low=1e-3, high=1, log=True))))),
    report=dict(step='second', metric='score', axes=['x'], required=.5))
ODD = st.sampled_from([0, -1, 1, 2, 10**9, 10**18, 10**5000, 1e300, -0., .5, float('inf'), float('nan'), True, None, '', 'x', 'first', '1e3', 'n', 'score', [],
                       {}, [[]], [1, 1], [0, 1], dict(low=0, high=1), dict(low=1, high=0), dict(low=-1e308, high=1e308), dict(low=0, high=2**62),
                       list(range(3000)), {f'k{i}': [1] for i in range(40)}, json.loads('['*200 + ']'*200)])


def places(value, path=()):
    "Every place in nested data"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, v in inner for place in places(v, (*path, key)))]


def changed(value, path, new):
    "A copy with something else at a place; None takes it away"
    if not path: return new
    key, tail = path[0], path[1:]
    if isinstance(value, list): return [changed(v, tail, new) if i == key else v for i, v in enumerate(value)]
    return {k: changed(v, tail, new) if k == key else v for k, v in value.items()} if new is not None or tail else {k: v for k, v in value.items() if k != key}


def a_plan_or_one_sentence(root):
    "Within bounds: what the file says is planned, or refused"
    start = time.monotonic()
    try:
        sweep = read_sweep('s', open_workspace(root))
        assert sum(map(len, plan_sweep(sweep).values())) <= sweep.spec.get('max_runs', 10_000)
    except UserError as error: assert '\n' not in str(error).strip() and len(str(error)) < 2000, error
    assert time.monotonic() - start < 5


@given(st.lists(st.tuples(st.sampled_from(places(VALID)), ODD), min_size=1, max_size=2))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_value_gives_a_plan_or_one_sentence(sums, changes):
    spec = VALID
    for path, new in changes:
        try: spec = changed(spec, path, new)
        except (AttributeError, TypeError): pass # An earlier change took the place away
    (sums/'params'/'sweeps'/'s.yaml').write_text(yaml_of(spec))
    a_plan_or_one_sentence(sums)


@given(st.integers(0, 900), st.integers(0, 12), st.text(alphabet='{}[]:,&*!|>"\'#%@`?- \n\tabxn019._eE~<\x00\ufeff', max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_text_gives_a_plan_or_one_sentence(sums, place, length, piece):
    text = yaml.safe_dump(json.loads(json.dumps(VALID)))
    (sums/'params'/'sweeps'/'s.yaml').write_text(text[:place] + piece + text[place + length:])
    a_plan_or_one_sentence(sums)


def test_bad_names(sums, cli):
    for name, why in (('../s', 'may hold letters'), ('t', "There is no sweep 't'")):
        assert why in cli('sweep', name).stderr and cli('table', name).returncode == 1
    assert cli('sweep', 's', '--workers', '0').returncode == 2


def test_schema_file_and_sweeps_of_the_repository():
    assert json.loads((ROOT/'params'/'sweeps'/'schema.json').read_text()) == SCHEMA
    for path in (ROOT/'params'/'sweeps').glob('*.yaml'): read_sweep(path.stem, open_workspace(ROOT))


def test_a_scheduler_elsewhere_and_workers_with_folders_of_their_own(sums, here, tmp_path_factory):
    "Two workers in network namespaces of their own, with their own copy of everything but the reports folder"
    if os.geteuid() or not shutil.which('ip'): pytest.skip('network namespaces need root and the command ip')
    write(sums, workers=2, steps=dict(a=dict(grid=dict(k=list(range(6))), params=dict(pause=.3)), b=dict(needs=dict(source='a'))))
    names, processes, env = [f'inspect{os.getpid()}w{i}' for i in range(2)], [], dict(os.environ)
    command = lambda *args: subprocess.run(list(map(str, args)), capture_output=True, check=True)
    bridge = f'ins{os.getpid() % 10**8}'
    try:
        try:
            command('ip', 'link', 'add', bridge, 'type', 'bridge')
            command('ip', 'addr', 'add', '10.213.0.1/24', 'dev', bridge); command('ip', 'link', 'set', bridge, 'up')
            for i, name in enumerate(names):
                command('ip', 'netns', 'add', name)
                command('ip', 'link', 'add', f'{bridge}{i}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
                command('ip', 'link', 'set', f'{bridge}{i}', 'master', bridge, 'up')
                for args in (('addr', 'add', f'10.213.0.{i + 2}/24', 'dev', 'eth0'), ('link', 'set', 'eth0', 'up'), ('link', 'set', 'lo', 'up')):
                    command('ip', '-n', name, *args)
        except subprocess.CalledProcessError as error: pytest.skip(f'no network namespace can be made here: {error.stderr.decode().strip()}')
        start = lambda *args, **more: processes.append(subprocess.Popen(
            list(map(str, args)), env=env | more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        start(BIN/'dask', 'scheduler', '--host', '10.213.0.1', '--port', '8799', '--no-dashboard')
        for i, name in enumerate(names):
            own = tmp_path_factory.mktemp(f'host{i}')
            shutil.copytree(sums/'nbs', own/'nbs'); shutil.copy(sums/'requirements.lock', own); (own/'params').mkdir(); (own/'data').mkdir()
            (own/'settings.ini').write_text(SETTINGS.replace('reports = reports', f"reports = {sums/'reports'}"))
            start('ip', 'netns', 'exec', name, BIN/'dask', 'worker', 'tcp://10.213.0.1:8799', '--nthreads', '1', '--no-dashboard',
                  '--local-directory', own/'dask', INSPECT_LIB_ROOT=str(own))
        done = here('sweep', 's', INSPECT_LIB_SCHEDULER='tcp://10.213.0.1:8799')
        assert done.returncode == 0 and state(sums) == dict(done=12), done.stdout + done.stderr
        assert here('verify').returncode == 0
    finally:
        for process in processes: process.terminate()
        for process in processes: process.wait(30)
        for name in names: subprocess.run(['ip', 'netns', 'del', name], capture_output=True)
        subprocess.run(['ip', 'link', 'del', bridge], capture_output=True)


def test_no_scheduler_there(sums, here):
    write(sums, steps=dict(a={}))
    refused = here('sweep', 's', INSPECT_LIB_SCHEDULER='tcp://127.0.0.1:9')
    assert refused.returncode == 1 and 'No Dask scheduler answers' in refused.stderr and 'Traceback' not in refused.stderr


def test_the_report_in_a_browser(sums, here, open_file):
    write(sums, steps=dict(a=dict(grid=dict(x=[1., 2., 3.], word=['a', 'b']), seeds=[0, 1]), broken=dict(params=dict(trouble='bug'))),
          title='Sums', report=dict(step='a', metric='score', required=.5, axes=['x', 'word'], caution='These are sums.'))
    here('sweep', 's')
    for width in (1280, 360):
        tab = open_file(sums/'reports'/'sweeps'/'s'/'report.html', width)
        assert not tab.complaints and len(tab.asked) == 1
        assert tab.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')
    links = tab.eval_on_selector_all('table a', 'all => all.map(a => a.href)')
    assert len(links) == 12
    assert open_file(links[0].removeprefix('file://')).title() == 'sum'


def test_in_a_notebook(sums):
    "The live table is one output that is updated"
    import nbformat
    from nbclient import NotebookClient
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2]))))
    new = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[new('from inspect_lib.sweep import sweep\nstate, _ = sweep.run_sweep("s"); state'), new('len(sweep.table("s"))')])
    env = os.environ | dict(INSPECT_LIB_ROOT=str(sums))
    before = dict(os.environ)
    os.environ.update(env)
    try: NotebookClient(nb, timeout=120, kernel_name='python3', resources=dict(metadata=dict(path=str(sums)))).execute()
    finally: os.environ.clear(); os.environ.update(before)
    shown = [o for o in nb.cells[0].outputs if o.output_type == 'display_data']
    assert len(shown) == 1 and 'Sweep s' in shown[0].data['text/plain'] and "'done'" in str(nb.cells[0].outputs[-1].data)
    assert nb.cells[1].outputs[0].data['text/plain'] == '2'


def test_more_accelerators_than_there_are(sums, here):
    write(sums, gpus=3, steps=dict(a={}))
    refused = here('sweep', 's', CUDA_VISIBLE_DEVICES='4')
    assert refused.returncode == 1 and 'needs 3 accelerators, and this machine has 1' in refused.stdout


def test_mlflow_is_told_and_never_in_the_way(sums, here):
    mlflow = pytest.importorskip('mlflow')
    write(sums, steps=dict(a=dict(grid=dict(k=[1, 2])), b=dict(params=dict(trouble='bug'))), report=dict(step='a', metric='score'))
    assert here('sweep', 's', INSPECT_LIB_TRACKING='http://127.0.0.1:9').returncode == 1 and state(sums) == dict(done=2, failed=1)
    here('sweep', 's', INSPECT_LIB_TRACKING='sqlite:///mlflow.db')
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{sums/'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name('inspect_lib/s').experiment_id])
    assert sorted(r.info.status for r in runs) == ['FAILED', 'FINISHED', 'FINISHED', 'FINISHED']
    assert {r.data.params['k'] for r in runs if 'score.value' in r.data.metrics} == {'1', '2'}
