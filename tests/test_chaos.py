"""Kill whatever works on a sweep at random moments, fill the disk, and go on: nothing lost, nothing made twice, nothing half."""
import os
import subprocess
import time

import psutil
import pytest

from conftest import add_pipeline
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.core.seed import generator
from inspect_lib.run.store import RECORD, verify_run
from inspect_lib.sweep.table import table

PARAMETERS = """k: int = 0  # A number
pause: float = 0.0  # Seconds
source: 'input' = ''  # Anything"""
CELLS = ["""import time
from inspect_lib.core.file import atomic
from inspect_lib.run.work import begin, finish
run = begin('42_short', globals())""",
         """for part in range(4):
    with open(run.folder/f'{part}.txt', 'w') as file: # Not atomic: a kill may leave half of it
        file.write(f'{k} '*200); file.flush(); time.sleep(pause/4); file.write('end')""",
         "finish(run, dict(score=k/7), f'{k} came out.', '<!doctype html><title>short</title>')"]
SWEEP = """executor: {executor}
retries: 2
steps:
  first: {{notebook: 42_short, params: {{pause: {pause}}}, grid: {{k: {first}}}}}
  then: {{notebook: 42_short, params: {{pause: {pause}}}, needs: {{source: first}}, grid: {{k: {then}}}}}
"""


def prepare(root, executor, pause, first, then):
    add_pipeline(root, '42_short', PARAMETERS, *CELLS)
    (root/'params'/'sweeps').mkdir(exist_ok=True)
    text = SWEEP.format(executor=executor, pause=pause, first=list(range(first)), then=list(range(100, 100 + then)))
    (root/'params'/'sweeps'/'s.yaml').write_text(text)


def at_work(launchers) -> list[psutil.Process]:
    "Every launcher, runner, zygote and kernel that is alive"
    found = []
    for process in launchers:
        try: found += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess: pass
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def kind(process: psutil.Process) -> str:
    try: line, name = ' '.join(process.cmdline()), process.name()
    except psutil.Error: return 'gone'
    return name if name in ('zygote', 'kernel') else 'kernel' if 'ipykernel' in line else 'runner' if 'sweep.runner' in line else 'launcher'


def kill_one(launchers, rng) -> str:
    "Kill a launcher, runner, zygote or kernel; the last two, which live for a moment only, every other time that there is one"
    alive = {}
    for process in at_work(launchers): alive.setdefault(kind(process), []).append(process)
    alive.pop('gone', None)
    if not alive or set(alive) == {'launcher'} and rng.random() < .8: return '' # Let them begin, most of the time
    inner = {name: alive[name] for name in ('zygote', 'kernel') if name in alive}
    if inner and rng.random() < .5: alive = inner
    name = sorted(alive)[rng.integers(len(alive))]
    victim = alive[name][rng.integers(len(alive[name]))]
    try: victim.kill()
    except psutil.NoSuchProcess: return ''
    return name


def fill(folder, seconds):
    "Leave no byte free for a while"
    filler = folder/'filler'
    try:
        with open(filler, 'wb') as file:
            while True: file.write(b'x'*2**16)
    except OSError: pass
    time.sleep(seconds)
    filler.unlink()


def result(table):
    "What does not depend on when and by whom it was made"
    return table.drop(columns=['duration_s', 'revision']).to_dict('list')


@pytest.mark.parametrize('executor, first, then, pause, kills', [
    ('in-process', 5, 3, .6, 6), pytest.param('in-process', 40, 4, .8, 50, marks=pytest.mark.slow),
    pytest.param('kernel', 12, 2, .8, 25, marks=pytest.mark.slow)])
def test_chaos(workspace, cli, executor, first, then, pause, kills):
    prepare(workspace, executor, pause, first, then)
    rng, launchers, seen, killed = generator(0, 'chaos', executor, kills), [], {}, []
    reports = workspace/'reports'
    disk = not os.geteuid() and not subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', reports], capture_output=True).returncode
    fill_at = kills//2 if disk else -1
    try:
        end = time.monotonic() + 20*kills + 120
        while len(killed) < kills and time.monotonic() < end:
            alive = [p for p in launchers if p.poll() is None]
            if any(p.returncode == 0 for p in launchers): break # All is done already
            launchers = alive + [cli('sweep', 's', '--workers', '2', wait=False) for _ in range(2 - len(alive))]
            time.sleep(rng.uniform(.2, 2.))
            if not list(reports.glob('42_short/s/*')): continue # Nobody has begun yet
            for path in reports.glob(f'42_short/s/*/{RECORD}'): # Finished is finished: a record never changes
                if not path.parent.name.startswith(('.', 'failed')): assert seen.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
            if victim := kill_one(launchers, rng): killed.append(victim)
            if len(killed) == fill_at: fill(reports, 2.); fill_at = -1
        for p in launchers: p.kill(); p.communicate()
        last = cli('sweep', 's')
        assert last.returncode == 0, last.stdout + last.stderr
        assert cli('sweep', 's').stdout.splitlines()[0].endswith('0 made just now.')
        runs = table('s', open_workspace(workspace))
        assert len(runs) == first*(then + 1) and (runs.state == 'done').all()
        folders = [p for p in (reports/'42_short'/'s').iterdir() if p.is_dir()]
        assert sorted(p.name for p in folders) == sorted(runs.key) # Nothing begun, failed or damaged is left
        for folder in folders:
            record = verify_run(folder)
            assert all((folder/f'{i}.txt').read_text() == f"{record['params']['k']} "*200 + 'end' for i in range(4))
        assert all(path.stat().st_mtime_ns == was for path, was in seen.items())
        print(f'{len(killed)} kills:', {name: killed.count(name) for name in set(killed)}, f'disk filled: {disk}')
        assert len(killed) >= min(3, kills)
        undisturbed = workspace/'undisturbed'; undisturbed.mkdir()
        assert cli('sweep', 's', INSPECT_LIB_REPORTS=str(undisturbed)).returncode == 0
        os.environ['INSPECT_LIB_REPORTS'] = str(undisturbed)
        try: calm = table('s', open_workspace(workspace))
        finally: del os.environ['INSPECT_LIB_REPORTS']
        assert result(calm) == result(runs)
    finally:
        for p in launchers:
            if p.poll() is None: p.kill()
        if disk: subprocess.run(['umount', '-l', reports])
