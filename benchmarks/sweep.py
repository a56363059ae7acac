"""Sweeps: overhead of a trivial run, and of one that imports torch, against papermill; time to find 1,000 runs done, and to make a table of 10,000."""
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import papermill
from _timing import seconds

from inspect_lib.core.file import write_json
from inspect_lib.core.paths import workspace
from inspect_lib.sweep.worker_pool import WorkerPool
from inspect_lib.sweep.dry_run import record_of
from inspect_lib.sweep.plan import read_sweep
from inspect_lib.run.store import RECORD, runs_folder, seal
from inspect_lib.sweep.sweep import run_sweep
from inspect_lib.sweep.table import table
from inspect_lib.sweep.grid import plan_sweep

SETTINGS = '[inspect_lib]\ndata = data\nparams = params\nreports = reports\ncache = .cache\nworkers = 1\nhub =\n'
PIPELINES = {'40_trivial': '', '41_torch': 'import torch, pandas, matplotlib.pyplot\n'}
CELLS = ['k: int = 0', "{imports}from inspect_lib.run.work import begin, finish\nrun = begin('{name}', globals())",
         "finish(run, dict(k=k), 'Done.', '<!doctype html><title>done</title>')"]
ROUNDS = 8


def make_workspace(root: Path):
    "A workspace with a trivial pipeline, and one with the imports that most have"
    for name in ('data', 'params/sweeps', 'nbs/pipelines'): (root/name).mkdir(parents=True)
    (root/'settings.ini').write_text(SETTINGS); (root/'requirements.lock').write_text('numpy\n')
    kernel = dict(name='python3', display_name='python3', language='python')
    for name, imports in PIPELINES.items():
        sources = [s.replace('{name}', name).replace('{imports}', imports) for s in CELLS]
        cells = [nbformat.v4.new_code_cell(s, metadata=dict(tags=['parameters']*(i == 0))) for i, s in enumerate(sources)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), root/'nbs'/'pipelines'/f'{name}.ipynb')
    os.environ['INSPECT_LIB_ROOT'] = str(root)
    return workspace(root)


def write_sweep(ws, name: str, n: int, notebook: str = '40_trivial'):
    (ws.params/'sweeps'/f'{name}.yaml').write_text(f'executor: in-process\nsteps: {{a: {{notebook: {notebook}, grid: {{k: {list(range(n))}}}}}}}\n')


def overheads(ws, notebook: str) -> dict[str, float]:
    "Seconds per run by each executor, in turns; a forked kernel's zygote is there already, as for all but the first run of a sweep"
    write_sweep(ws, notebook, 4*ROUNDS, notebook)
    sweep = read_sweep(notebook, ws)
    records = iter([record_of(sweep.steps['a'], p, {}, ws, {}) for p in plan_sweep(sweep)['a']])
    pool, source, out = WorkerPool(ws, 1), str(ws.root/'nbs'/'pipelines'/f'{notebook}.ipynb'), str(ws.root/'out.ipynb')
    def ours(executor, kernels='forked'):
        (ws.root/'settings.ini').write_text(f'{SETTINGS}kernels = {kernels}\n')
        pool.submit('x', dict(record=next(records), executor=executor)); assert pool.next_result(120)[1]['state'] == 'done'
    executors = {'in-process': lambda: ours('in-process'), 'forked kernel': lambda: ours('kernel'), 'new kernel': lambda: ours('kernel', 'new'),
                 'papermill API': lambda: papermill.execute_notebook(source, out, dict(k=1), progress_bar=False, kernel_name='python3'),
                 'papermill command': lambda: subprocess.run([Path(sys.executable).parent/'papermill', source, out, '-p', 'k', '1'], capture_output=True, check=True)}
    for execute in executors.values(): execute() # Warm up
    times = {name: [] for name in executors}
    for _ in range(ROUNDS):
        for name, execute in executors.items(): times[name].append(seconds(execute))
    pool.close()
    return {name: float(np.median(values)) for name, values in times.items()}


def cached(ws, n: int = 1000) -> float:
    "Seconds in which a sweep finds that all of its runs are done"
    write_sweep(ws, 'many', n)
    sweep, seen = read_sweep('many', ws), {}
    for planned in plan_sweep(sweep)['a']:
        record = record_of(sweep.steps['a'], planned, {}, ws, seen)
        place = runs_folder(ws, record['pipeline'], record['name'])
        if (place/record['key']).exists(): continue
        work = place/f".work-{record['key']}"
        for name in ('notebook.ipynb', 'log.txt', 'report.html', 'metrics.json'): work.mkdir(parents=True, exist_ok=True); (work/name).write_text('x'*4000)
        seal(work, record | dict(metrics={}, duration_s=1.), place/record['key'])
    run_sweep('many', ws)
    return seconds(lambda: run_sweep('many', ws))


def tables(ws, n: int = 10_000) -> tuple[float, float]:
    "Seconds to make a table, for the first time and once more"
    runs = [dict(step='a', pipeline='41_none', name='big', key=f'{i:016x}', params=dict(k=i, encoder='lbp', seed=0)) for i in range(n)]
    write_json(ws.reports/'sweeps'/'big'/'sweep.json', dict(runs=runs, later=[], spec=dict(steps=dict(a={})), order=['a']))
    metrics = {f'm{i}': dict(value=.5, low=.4, high=.6, n=100) for i in range(4)}
    text = '{"duration_s": 1.0, "metrics": %s, "git": {"revision": "abc"}}' % str(metrics).replace("'", '"')
    for run in runs:
        folder = runs_folder(ws, '41_none', 'big')/run['key']; folder.mkdir(parents=True)
        (folder/RECORD).write_text(text)
    return seconds(lambda: table('big', ws)), seconds(lambda: table('big', ws))


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        ws = make_workspace(Path(folder)/'w')
        for notebook in PIPELINES:
            times = overheads(ws, notebook)
            print(f'seconds per run of {notebook}:', ', '.join(f'{name} {s:.3f}' for name, s in times.items()))
            for ours, theirs in itertools.product(('in-process', 'forked kernel', 'new kernel'), ('papermill API', 'papermill command')):
                print(f'{ours} / {theirs}: {times[ours]/times[theirs]:.2f}')
        print(f'1,000 runs that are done: {cached(ws):.2f} s')
        first, again = tables(ws)
        print(f'table of 10,000 runs: {again:.2f} s, the first time {first:.2f} s')
