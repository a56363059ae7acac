"Clusters as processes: workers and owners killed, two owners of one folder, intervals, other machines, full memory disks."
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from inspect_lib.core.error import UserError
from inspect_lib.data.frame import verify_frame
from inspect_lib.render import worker
from inspect_lib.render.render_set import Cluster, render_plan
from inspect_lib.render.usecase import make_plan
from inspect_lib.render.worker import MARK, frame_name, render_scratch

TINY = {'resolution': [32, 32], 'samples': 2}
SLOW = {'resolution': [64, 64], 'samples': 64} # Slow enough to be caught in the middle
PARENT = """import json, sys
from inspect_lib.core.error import UserError
from inspect_lib.render.render_set import Cluster, render_plan
from inspect_lib.render.usecase import make_plan
if __name__ == '__main__':
    config, n, folder, cluster = json.loads(sys.argv[1])
    try: result = render_plan(make_plan('station', config, 0), range(n), folder, Cluster(**cluster))
    except UserError as error: sys.exit(str(error))
    print(json.dumps(dict(reused=result.reused, lost=result.lost, seconds=result.seconds, devices=result.devices)))
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')


def start(config: dict, n: int, folder: Path, **cluster) -> subprocess.Popen:
    "A cluster with its owner in a process of its own"
    call = json.dumps([config, n, str(folder), cluster])
    return subprocess.Popen([sys.executable, '-c', PARENT, call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds: float = 120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(.05)


def workers_of(parent: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(parent).children(recursive=True) if 'inspect_lib.render.worker' in p.cmdline()]


def complete(folder: Path, config: dict, n: int):
    "Every frame is there, whole and of its draw, and nothing else"
    assert sorted(p.name for p in folder.iterdir()) == [frame_name(i) for i in range(n)]
    return [verify_frame(folder/frame_name(i), make_plan('station', config, 0).draw(i)) for i in range(n)]


def there(folder: Path) -> int: return len(list(folder.glob('*.hdf5')))


# ---------------------------------------------------------------- killed, and two at once

def test_a_killed_worker_is_replaced(tmp_path):
    parent = start(SLOW, 7, tmp_path, workers=2)
    wait_until(lambda: there(tmp_path) >= 2)
    workers_of(parent.pid)[0].kill()
    out, errors = parent.communicate(timeout=300)
    assert parent.returncode == 0, errors
    result = json.loads(out)
    assert result['lost'] == 1 and result['reused'] == 0 and len(result['seconds']) == 7
    assert result['devices'] == ['processor']
    complete(tmp_path, SLOW, 7)


def test_a_second_owner_is_refused_until_the_first_is_gone(tmp_path):
    first = start(SLOW, 5, tmp_path, workers=1)
    try:
        wait_until(lambda: there(tmp_path) >= 1)
        with pytest.raises(UserError, match='Another process is rendering'):
            render_plan(make_plan('station', SLOW, 0), range(5), tmp_path, Cluster(workers=1))
        mine = workers_of(first.pid)
    finally: first.kill(); first.communicate()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in mine), 30)
    assert (tmp_path/MARK).exists() # Of the one that was killed
    result = render_plan(make_plan('station', SLOW, 0), range(5), tmp_path, Cluster(workers=1))
    assert 1 <= result.reused < 5 and result.reused + len(result.seconds) == 5
    complete(tmp_path, SLOW, 5)


def test_a_worker_stops_where_the_folder_is_anothers(tmp_path):
    "As on another machine, where it does not die with its owner"
    plan = make_plan('station', TINY, 0)
    job = dict(use_case='station', config=plan.config, seed=0, digest=plan.digest, folder=str(tmp_path), owner='old',
               compression='none', threads=1)
    (tmp_path/MARK).write_text('old')
    (tmp_path/'job.json').write_text(json.dumps(job))
    process = subprocess.Popen([sys.executable, '-m', 'inspect_lib.render.worker', str(tmp_path/'job.json')], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write('[0]\n'); process.stdin.flush()
    wait_until(lambda: there(tmp_path) == 1)
    (tmp_path/MARK).write_text('new')
    out, _ = process.communicate('[1, 2]\n', timeout=120)
    assert process.returncode == 0 and there(tmp_path) == 1 and out.count('"frame"') == 1


# ---------------------------------------------------------------- the same frames, whoever renders them

def test_an_interval_is_the_full_run(tmp_path):
    "Other workers, chunks and threads, and only a part: the same draws, labels, masks and depth, and the same pixels"
    plan = make_plan('station', TINY | {'samples': 4}, 0)
    render_plan(plan, range(7), tmp_path/'full', Cluster(workers=1))
    render_plan(plan, range(3, 7), tmp_path/'part', Cluster(workers=2, threads=2, frames_per_worker=2), set_size=7)
    with pytest.raises(UserError, match='4 entries that are not asked for'):
        render_plan(plan, [2], tmp_path/'part', Cluster(workers=1))
    for i in range(3, 7):
        full, part = (verify_frame(tmp_path/name/frame_name(i)) for name in ('full', 'part'))
        assert full.draw == part.draw and full.attributes == part.attributes
        assert set(full.arrays) == set(part.arrays)
        for key in ('depth', 'instance_segmaps', 'category_id_segmaps'): assert (full.arrays[key] == part.arrays[key]).all(), (i, key)
        off = np.abs(full.arrays['colors'].astype(int) - part.arrays['colors'])
        assert off.max() <= 1 and (off > 0).mean() < 1e-3 # Flat-shaded: zero on one kind of processor


# ---------------------------------------------------------------- other machines

@pytest.fixture
def scheduler():
    "Address of a Dask cluster of two machines, which are processes"
    distributed = pytest.importorskip('distributed')
    inside = dict(dashboard_address='127.0.0.1:0', worker_dashboard_address='127.0.0.1:0', silence_logs=60)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, memory_limit=0, **inside)
    yield cluster
    cluster.close(timeout=20)


def test_a_cluster_makes_the_same_frames(scheduler, tmp_path):
    plan, far = make_plan('station', TINY, 0), Cluster(scheduler=scheduler.scheduler_address)
    result = render_plan(plan, range(2), tmp_path/'far', far)
    assert (result.reused, result.lost, result.devices, len(result.seconds)) == (0, 0, ['processor'], 2)
    near = render_plan(plan, range(1), tmp_path/'near', Cluster(workers=1)).paths
    for path, frame in zip(near, complete(tmp_path/'far', TINY, 2)):
        assert all((verify_frame(path).arrays[key] == frame.arrays[key]).all() for key in ('depth', 'instance_segmaps'))
    assert render_plan(plan, range(2), tmp_path/'far', far).reused == 2


@pytest.mark.slow
def test_a_machine_of_the_cluster_is_lost(scheduler, tmp_path):
    parent = start(SLOW, 16, tmp_path, scheduler=scheduler.scheduler_address)
    wait_until(lambda: there(tmp_path) >= 2)
    machine = psutil.Process(next(iter(scheduler.workers.values())).pid)
    for p in [*machine.children(recursive=True), machine]: p.kill()
    out, errors = parent.communicate(timeout=300)
    assert parent.returncode == 0, errors
    complete(tmp_path, SLOW, 16)


@pytest.mark.slow
def test_the_parent_of_a_cluster_is_killed_and_another_goes_on(scheduler, tmp_path):
    first = start(SLOW, 16, tmp_path, scheduler=scheduler.scheduler_address)
    wait_until(lambda: there(tmp_path) >= 2)
    first.kill(); first.communicate()
    second = start(SLOW, 16, tmp_path, workers=1) # While the cluster's workers may still be at their chunks
    out, errors = second.communicate(timeout=300)
    assert second.returncode == 0 and json.loads(out)['reused'] >= 2, errors
    wait_until(lambda: not [p for p in psutil.Process().children(recursive=True) if 'inspect_lib.render.worker' in p.cmdline()])
    complete(tmp_path, SLOW, 16)


@pytest.mark.slow
def test_no_cluster_there(tmp_path):
    with pytest.raises(UserError, match='No Dask scheduler answers'):
        render_plan(make_plan('station', TINY, 0), range(1), tmp_path, Cluster(scheduler='tcp://127.0.0.1:9'))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- devices and room

@pytest.mark.slow
def test_a_card_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    plan = make_plan('floating', {'camera': {'resolution': [32, 32]}, 'device': 'cuda'}, 0)
    with pytest.raises(UserError, match="no graphics card for device 'cuda'"): render_plan(plan, [0], tmp_path, Cluster(workers=1))
    assert not list(tmp_path.iterdir())



def test_a_memory_disk_that_is_too_small_is_not_used(monkeypatch):
    monkeypatch.setattr(worker, 'MIN_FREE', 2**60)
    with render_scratch() as folder: assert not str(folder).startswith('/dev/shm')
    if os.access('/dev/shm', os.W_OK):
        monkeypatch.setattr(worker, 'MIN_FREE', 0)
        with render_scratch() as folder: assert str(folder).startswith('/dev/shm')
