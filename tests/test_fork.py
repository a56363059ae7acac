"""Kernels that are forked from a prepared process: as fresh ones in everything that a run can see, and gone when they should be."""
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import nbformat
import psutil
import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from conftest import add_pipeline, wait_for
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.run import forkserver
from inspect_lib.run.executor import run_record
from inspect_lib.run.kernel import CellEnded
from inspect_lib.run.params import check_params, declared
from inspect_lib.run.work import new_record, pipeline_notebook

BEGIN = "from inspect_lib.run.work import begin, finish\nrun = begin('95_fork', globals())\nsaid = {}"
FINISH = "finish(run, said, 'Said.', '<!doctype html><title>fork</title>')"
linux = pytest.mark.skipif(sys.platform != 'linux', reason='zygotes rely on what Linux has')


@pytest.fixture
def made(workspace, monkeypatch):
    "Make a run of some cells in a kernel: what it said, its log, its folder"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    forkserver.close_servers()
    count = iter(range(1000))
    def run(*cells, kernels='forked', first='', alone=False):
        monkeypatch.setenv('INSPECT_LIB_KERNELS', kernels)
        add_pipeline(workspace, '95_fork', 'n: int = 1  # A number', *([first] if first else []), BEGIN, *cells, FINISH)
        ws = open_workspace(workspace)
        params = check_params(dict(n=next(count)), declared(pipeline_notebook('95_fork', ws)), 'x')
        folder, _ = run_record(new_record('95_fork', 'a', params, ws), ws)
        log = (folder/'log.txt').read_text()
        assert ('by itself' in log) == alone
        return json.loads((folder/'metrics.json').read_text())['metrics'], log, folder
    yield run
    forkserver.close_servers()


IMPORTS = 'import random, torch, numpy as np, pandas, sklearn.metrics, matplotlib.pyplot as plt'
FACTS = """import asyncio, builtins, faulthandler, gc, json, locale, logging, matplotlib, resource, signal, sys, threading, time, warnings
from threadpoolctl import threadpool_info
import os
mask = os.umask(0); os.umask(mask)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
per_run = ('INSPECT_LIB_WORK', 'JUPYTER_RUNTIME_DIR', 'JPY_PARENT_PID')
said = dict(
    names=sorted(n for n in globals() if not n.startswith('_')), builtins=sorted(vars(builtins)),
    environment={k: v for k, v in sorted(os.environ.items()) if k not in per_run and k != 'INSPECT_LIB_KERNELS'}, given=[k in os.environ for k in per_run],
    folder=os.getcwd(), umask=mask, path=sys.path, arguments=[os.path.basename(sys.argv[0]), sys.argv[1], len(sys.argv)], flags=str(sys.flags),
    signals={s.name: str(getattr(signal.getsignal(s), '__name__', signal.getsignal(s))) for s in signal.valid_signals() if isinstance(s, signal.Signals)},
    masked=[status[k].strip() for k in ('SigBlk', 'SigIgn', 'SigCgt')], blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    limits=[resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith('RLIMIT_')],
    priority=[os.nice(0), sorted(os.sched_getaffinity(0))], leads=[os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    threads=sorted(t.name.split('-')[0] for t in threading.enumerate()), running=len(os.listdir('/proc/self/task')) < 30,
    pools=sorted([i['user_api'], i['num_threads']] for i in threadpool_info()), torch=[torch.get_num_threads(), torch.get_num_interop_threads()],
    files=sorted(os.path.basename(os.readlink(f'/proc/self/fd/{f}')).split(':')[0].split('.')[0] for f in ('1', '2')), streams=[type(sys.stdout).__name__, type(sys.__stdout__).__name__, sys.__stdout__.encoding],
    stdin=os.read(0, 1) == b'', cuda=[torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork()],
    dtype=str(torch.get_default_dtype()), grad=torch.is_grad_enabled(), deterministic=torch.are_deterministic_algorithms_enabled(),
    numpy=np.geterr(), printed=np.get_printoptions()['precision'], pandas=[pandas.get_option(f'display.{n}') for n in ('max_rows', 'max_columns', 'width', 'notebook_repr_html')],
    figures=[matplotlib.get_backend(), plt.rcParams['figure.dpi'], plt.isinteractive(), len(plt.get_fignums())], gc=[gc.isenabled(), gc.get_threshold()],
    warn=len(warnings.filters), recursion=sys.getrecursionlimit(), fault=faulthandler.is_enabled(), locale=list(locale.getlocale()),
    root=[type(h).__name__ for h in logging.getLogger().handlers], level=logging.getLogger().level, patched=[random.gauss.__name__, np.median.__name__, pandas.read_csv.__name__],
    hooks=[sys.excepthook.__name__, type(sys.displayhook).__name__, hasattr(sys, 'ps1')], traced=[sys.gettrace() is None, sys.getprofile() is None],
    zone=time.tzname, zero=torch.zeros(1).dtype == torch.float32, children=resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime < .5)"""
SPOIL = """import builtins, gc, json, locale, logging, os, resource, signal, sys, threading, time, warnings
LEFT = 1; builtins.LEFT = 1
os.environ['LEFT'] = '1'; os.environ.pop('HOME', None); os.chdir('/'); os.umask(0); sys.path.insert(0, '/left'); sys.argv.append('left')
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGUSR1, lambda *_: None); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)); os.nice(1)
random.seed(0); np.random.seed(0); torch.manual_seed(0); torch.set_num_threads(1); torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.use_deterministic_algorithms(True)
np.seterr(all='raise'); np.set_printoptions(precision=2); pandas.set_option('display.max_rows', 3); plt.rcParams['figure.dpi'] = 7; plt.figure(); plt.ioff()
random.gauss = np.median = pandas.read_csv = time.sleep; warnings.simplefilter('error'); logging.getLogger().setLevel(1); logging.getLogger().addHandler(logging.NullHandler())
gc.set_threshold(1, 1, 1); sys.setrecursionlimit(999); os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()
kept = open('/dev/zero', 'rb'); locale.setlocale(locale.LC_ALL, 'C')
(torch.rand(500, 500)@torch.rand(500, 500)).sum(); np.random.rand(500, 500)@np.random.rand(500, 500)"""


@linux
def test_a_forked_kernel_is_as_a_new_one_whatever_ran_before_it(made, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    new, _, _ = made(FACTS, kernels='new', first=IMPORTS)
    made(SPOIL, first=IMPORTS)
    forked, log, _ = made(FACTS, first=IMPORTS)
    assert {k: (v, new[k]) for k, v in forked.items() if v != new[k]} == {} and forked['torch'][0] == 2 == forked['pools'][0][1]


DRAWS = """import cv2, hashlib, os, random, secrets, tempfile, uuid, numpy as np, torch
fixed = cv2.randu(np.zeros(3), 0, 1)
said = dict(random=random.random(), numpy=np.random.rand(), generator=np.random.default_rng().random(), torch=torch.rand(2).tolist(), seed=str(torch.initial_seed()),
            uuid=str(uuid.uuid4()), token=secrets.token_hex(8), file=tempfile.mktemp(), sets=hash('a'), fixed=fixed.ravel().tolist())"""


@linux
def test_no_two_kernels_draw_the_same_unless_new_ones_would(made, monkeypatch):
    "A fork inherits the state of every generator: each is seeded anew, as the start of a process does"
    spoil = 'random.seed(0); np.random.seed(0); torch.manual_seed(0); cv2.setRNGSeed(7)'
    one, two, three = made(DRAWS, spoil)[0], made(DRAWS)[0], made(DRAWS, kernels='new')[0]
    assert {k for k in one if one[k] == two[k]} == {'fixed', 'sets'} and one['fixed'] == three['fixed'] # The hashes of texts are the zygote's
    monkeypatch.setenv('PYTHONHASHSEED', '0')
    assert made(DRAWS)[0]['sets'] == made(DRAWS, kernels='new')[0]['sets']
    seeded = 'random.seed(5); np.random.seed(5); torch.manual_seed(5)\n' + DRAWS.split('\n', 1)[1]
    same = [made(DRAWS, seeded, kernels=kernels)[0] for kernels in ('forked', 'new')]
    assert all(same[0][k] == same[1][k] for k in ('random', 'numpy', 'torch', 'seed'))


@linux
def test_what_is_ours_is_read_anew_by_every_kernel(made, workspace):
    "The zygote imports nothing that a run's key covers by its source"
    (own := workspace/'plugins'/'mine'/'cup.py').parent.mkdir(parents=True)
    (workspace/'beside.py').write_text('VALUE = 1')
    look = "import sys\nsaid['ours'] = ours"
    ours = "import sys, json, numpy\nours = [m for m in sys.modules if m.split('.')[0] in ('inspect_lib', 'mine', 'beside', 'plugins')]"
    for value in ('1', '2'):
        own.write_text(f'VALUE = {value}'); (workspace/'beside.py').write_text(f'VALUE = {value}0')
        said, log, _ = made(look, "from inspect_lib.core.plugin import import_named\nimport beside\nsaid['value'] = [import_named('mine.cup').VALUE, beside.VALUE]", first=ours)
        assert said == dict(ours=[], value=[int(value), 10*int(value)])
    assert len(forkserver._servers.by_key) == 1


@pytest.fixture
def fork(tmp_path, monkeypatch):
    "Fork a kernel without a run around it: its process, how to have code executed by it, and what was told"
    forkserver.close_servers()
    clients, packages, sockets = [], tmp_path/'packages', Path(tempfile.mkdtemp(prefix='fork')) # Paths of sockets have to be short
    packages.mkdir()
    monkeypatch.setenv('PYTHONPATH', f"{packages}:{os.environ.get('PYTHONPATH', '')}")
    def start(*imports, **environment):
        file, told = str(sockets/f'{time.monotonic_ns()}.json'), []
        write_connection_file(file, transport='ipc', ip=file + 's')
        with open(tmp_path/'log.txt', 'ab') as log:
            process = forkserver.fork_kernel(['ipykernel_launcher.py', '-f', file], os.environ | environment, str(tmp_path), log.fileno(), imports, ('MINE',), told.append)
        if not process: return None, None, told
        client = BlockingKernelClient(connection_file=file); client.load_connection_file(); client.start_channels(); clients.append(client)
        client.wait_for_ready(60)
        def execute(code):
            said = []
            client.execute_interactive(code, timeout=60, output_hook=lambda m: said.append(m['content'].get('text', m['content'].get('evalue', ''))))
            return ''.join(said).strip()
        execute.shutdown = client.shutdown
        return process, execute, told
    start.packages = packages
    yield start
    for client in clients: client.stop_channels()
    forkserver.close_servers()
    shutil.rmtree(sockets)


@linux
def test_kernels_at_once_know_nothing_of_each_other(fork):
    "Forked from several threads at once, which share one zygote"
    with ThreadPoolExecutor(4) as threads: started = list(threads.map(lambda i: fork(('json', ''), MINE=str(i)), range(4)))
    assert len({process.pid for process, _, _ in started}) == 4 and len(forkserver._servers.by_key) == 1
    zygote, = (server.process.pid for server in forkserver._servers.by_key.values())
    for i, (process, execute, _) in enumerate(started): execute(f'import os, json; mine = {i}; json.mine = {i}; os.environ["LEFT"] = "{i}"')
    look = 'print(mine, json.mine, os.environ["LEFT"], os.environ["MINE"], os.getppid(), sum(f.startswith("socket:") for f in map(lambda f: os.path.realpath(f"/proc/self/fd/{f}").rsplit("/")[-1], os.listdir("/proc/self/fd"))) < 40)'
    assert [execute('import sys;' + look) for _, execute, _ in started] == [f'{i} {i} {i} {i} {zygote} True' for i in range(4)]
    started[0][0].kill()
    assert started[0][0].wait(10) == -signal.SIGKILL and [process.poll() for process, *_ in started[1:]] == [None]*3
    started[1][1].shutdown()
    assert started[1][0].wait(20) == 0 and started[2][1]('print(mine)') == '2'
    wait_for(lambda: len(psutil.Process(zygote).children()) == 2, 10) # Those that ended are no zombies


@linux
@pytest.mark.parametrize('what, status', [('os._exit(3)', 3), ('import ctypes; ctypes.string_at(0)', -signal.SIGSEGV), ('os.kill(os.getpid(), 15)', -signal.SIGTERM)])
def test_how_a_forked_kernel_ended(fork, what, status):
    process, execute, _ = fork()
    assert process.poll() is None
    Thread(target=lambda: pytest.raises(Exception, execute, 'import os, signal; signal.signal(15, signal.SIG_DFL); ' + what), daemon=True).start()
    assert process.wait(30) == status == process.poll() and process.send_signal(signal.SIGTERM) is None


MODULES = dict(threaded='import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()',
               asking='from IPython import get_ipython; HERE = get_ipython() is not None and hasattr(get_ipython(), "kernel")',
               builtin='try: HERE = type(get_ipython()).__name__ == "ZMQInteractiveShell"\nexcept NameError: HERE = False',
               using='from IPython import get_ipython; HERE = "IPKernelApp" in get_ipython().config',
               keeping='from IPython import get_ipython; SHELL = get_ipython(); HERE = True',
               failing='raise RuntimeError("not in a zygote")', leaving='import sys; sys.exit(3)', missing=None)


@linux
@pytest.mark.parametrize('name', list(MODULES))
def test_an_import_that_is_not_to_be_made_before_a_fork(fork, name):
    "It is left to the kernels, and the log says so; the rest is prepared"
    if MODULES[name]: (fork.packages/f'{name}_x.py').write_text(MODULES[name])
    (fork.packages/'plain_x.py').write_text('import os; PID = os.getpid()')
    _, execute, told = fork((f'{name}_x', ''), ('plain_x', 'PID'))
    zygote, = (server.process.pid for server in forkserver._servers.by_key.values())
    assert execute('import plain_x; print(plain_x.PID)') == str(zygote)
    if name == 'threaded': assert len(told) == 1 and 'threaded_x is imported by every kernel anew: it starts a thread' in told[0]
    elif name in ('using', 'keeping'): assert f'{name}_x is imported by every kernel anew: it needs the shell of a notebook' in told[0]
    else: assert told == []
    if 'HERE' in (MODULES[name] or ''): assert execute(f'import {name}_x; print({name}_x.HERE)') == 'True'
    if name == 'keeping': assert execute('print(keeping_x.SHELL is get_ipython())') == 'True'
    assert execute('import sys; print(sys.modules.get("threaded_x"))') == 'None'
    assert not fork((f'{name}_x', ''), ('plain_x', 'PID'))[2] and len(os.listdir(f'/proc/{zygote}/task')) == 1


@linux
def test_a_zygote_that_is_no_longer_what_a_new_process_would_be_is_replaced(fork, monkeypatch):
    (fork.packages/'plain_x.py').write_text('VALUE = 1')
    look, seen = 'import plain_x, os; m = os.umask(0); os.umask(m); print(plain_x.VALUE, oct(m), os.environ.get("MORE"), os.getcwd() == os.path.realpath(os.getcwd()))', []
    def said(**environment):
        _, execute, told = fork(('plain_x', ''), **environment)
        seen.append(list(forkserver._servers.by_key.values())[-1].process.pid)
        assert not told
        return execute(look).split()[:3]
    before = os.umask(0o022)
    try:
        assert said() == said() == ['1', '0o22', 'None'] and seen[0] == seen[1]
        os.umask(0o077); assert said() == ['1', '0o77', 'None'] and seen[2] != seen[1]
        assert said(MORE='2') == ['1', '0o77', '2']
    finally: os.umask(before)
    (fork.packages/'plain_x.py').write_text('VALUE = 22') # As if another version had been installed
    assert said(MORE='3')[0] == '22' and len(set(seen)) == 4 == len(seen) - 1
    os.umask(0o022)
    try: assert said()[0] == '22' and seen[-1] not in seen[:-1]
    finally: os.umask(before)
    assert len(forkserver._servers.by_key) <= forkserver.SERVERS
    os.kill(seen[-1], signal.SIGKILL)
    os.umask(0o022)
    try: assert said()[0] == '22' and seen[-1] != seen[-2]
    finally: os.umask(before)


@linux
def test_a_killed_zygote_takes_its_kernels_with_it(fork):
    process, _, _ = fork()
    zygote, = forkserver._servers.by_key.values()
    zygote.process.kill()
    assert process.wait(10) == -signal.SIGKILL
    wait_for(lambda: not psutil.pid_exists(process.pid) or psutil.Process(process.pid).status() == 'zombie', 10)


def test_where_nothing_can_be_forked_the_kernel_is_started_by_itself_and_the_log_says_so(made, monkeypatch):
    def refuse(): raise forkserver.NoFork('this system is not Linux')
    monkeypatch.setattr(forkserver, '_refuse_elsewhere', refuse)
    said, log, _ = made(alone=True)
    assert 'The kernel is started by itself, not forked: this system is not Linux.' in log


@linux
def test_figures_and_messages_of_imported_packages_stand_in_the_notebook(made):
    "What was imported before the kernel had its shell shows itself as if it had been imported by a cell"
    cells = ("plt.figure(figsize=(1, 1)).subplots().plot([1, 2]);", "optuna.logging.get_logger('optuna').warning('a warning of optuna')",
             "import sys; print('printed'); display(3)")
    first = 'import logging, os, optuna, matplotlib.pyplot as plt'
    shown = {}
    for kernels in ('forked', 'new'):
        outputs = [c.outputs for c in nbformat.read(made(*cells, first=first, kernels=kernels)[2]/'notebook.ipynb', 4).cells if c.cell_type == 'code' and c.source in cells]
        text = lambda outs, name: ''.join(o.text for o in outs if o.get('name') == name)
        shown[kernels] = [sorted(o.data) for o in outputs[0]], 'a warning of optuna' in text(outputs[1], 'stderr'), text(outputs[2], 'stdout')
    assert shown['forked'] == shown['new'] == ([['image/png', 'text/plain']], True, 'printed\n')


def is_its_own(usage: dict) -> bool: return 20 < usage['peak_memory_mb'] < 250 and usage['peak_memory_workers_mb'] < 150


@linux
def test_peak_memory_is_the_runs_own(made):
    "A fork begins with the pages of its zygote, which are those of the same imports, and with nothing of another run"
    made('kept = bytearray(600_000_000)', first='import numpy')
    assert is_its_own(json.loads((made(first='import numpy')[2]/'run.json').read_text())['usage'])


@linux
def test_peak_memory_of_a_new_process_is_the_runs_own(workspace, cli):
    "By the command itself: Linux counts what the starting process held, and that of these tests is large"
    add_pipeline(workspace, '95_fork', 'size: int = 1  # Bytes', 'import numpy', BEGIN, 'kept = bytearray(size)', FINISH)
    (workspace/'params'/'95_fork').mkdir()
    for name, size in (('large', 600_000_000), ('small', 1)):
        (workspace/'params'/'95_fork'/f'{name}.yaml').write_text(f'size: {size}\n')
        done = cli('run', '95_fork', name, INSPECT_LIB_KERNELS='new')
        assert done.returncode == 0, done.stderr
    usage = {p.parents[1].name: json.loads(p.read_text())['usage'] for p in (workspace/'reports'/'95_fork').glob('*/*/run.json')}
    assert usage['large']['peak_memory_mb'] > 600 and is_its_own(usage['small']), usage


@linux
@pytest.mark.parametrize('kernels', ['forked', 'new'])
@pytest.mark.parametrize('what, why', [('import os; os._exit(3)', 'status 3'), ('import os; os.kill(os.getpid(), 9)', 'was killed (SIGKILL)'),
                                       ('import ctypes; ctypes.string_at(0)', 'SIGSEGV'), ('exit()', 'ended the notebook by exit()')])
def test_a_cell_that_leaves_is_named_in_both_modes(made, what, why, kernels):
    with pytest.raises(CellEnded, match=re.escape(why)) as caught: made(what, kernels=kernels)
    assert f'({what})' in str(caught.value)
    assert made('said["n"] = n', kernels=kernels)[0]['n'] > 0 # The next one is well


@linux
def test_nobody_is_left_when_a_sweep_is_killed(workspace, cli):
    "kill -9 of the launcher ends its runners, their zygotes and their kernels"
    add_pipeline(workspace, '95_fork', 'k: int = 1  # A number', BEGIN,
                 "import subprocess, time, pathlib\nchild = subprocess.Popen(['sleep', '300'])\n(run.folder/'begun').touch()\ntime.sleep(300)", FINISH)
    (workspace/'params'/'sweeps').mkdir()
    (workspace/'params'/'sweeps'/'s.yaml').write_text('executor: kernel\nsteps: {a: {notebook: 95_fork, grid: {k: [1, 2]}}}\n')
    launcher = cli('sweep', 's', '--workers', '2', wait=False)
    wait_for(lambda: len(list(workspace.glob('reports/95_fork/s/.work-*/begun'))) == 2)
    family = psutil.Process(launcher.pid).children(recursive=True)
    names = [p.name() for p in family]
    assert names.count('zygote') == names.count('kernel') == 2 and names.count('sleep') == 2
    launcher.kill(); launcher.communicate()
    wait_for(lambda: not [p for p in family if p.is_running() and p.status() != 'zombie' and p.name() != 'sleep'], 20)
    for p in family: # A program of somebody's own that ignores its parent's end is not ours to promise for
        if p.is_running() and p.name() == 'sleep': p.kill()


def test_an_unknown_setting_is_one_sentence(workspace, cli):
    add_pipeline(workspace, '95_fork', 'n: int = 1  # A number', BEGIN, FINISH)
    (workspace/'params'/'95_fork').mkdir(); (workspace/'params'/'95_fork'/'a.yaml').write_text('')
    done = cli('run', '95_fork', 'a', INSPECT_LIB_KERNELS='warm')
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and "Setting 'kernels' must be forked or new, got 'warm'" in done.stderr
