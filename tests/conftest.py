"""Shared by all tests: throw-away workspaces, the command line, and where real pictures are."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from inspect_lib.cli import main
from inspect_lib.core.image import write_image
from inspect_lib.core.seed import generator

signal.signal(signal.SIGINT, signal.default_int_handler) # Who starts the tests in the background hands on that Ctrl-C is ignored
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which('chromium') or '/usr/bin/chromium'
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync']
SETTINGS = '[inspect_lib]\ndata = data\nparams = params\nreports = reports\ncache = .cache\nworkers = 2\nhub =\n'


def add_pipeline(root: Path, name: str, parameters: str, *cells: str):
    "A pipeline notebook with a tagged parameters cell"
    new = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[new(parameters, metadata=dict(tags=['parameters'])), *map(new, cells)])
    nb.metadata['kernelspec'] = dict(name='python3', display_name='python3', language='python')
    (root/'nbs'/'pipelines').mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, root/'nbs'/'pipelines'/f'{name}.ipynb')


def piece(i: int, defective: bool, shape=(40, 56)) -> tuple[np.ndarray, np.ndarray]:
    "A noisy surface, by choice with a bright spot, and its mask"
    rng = generator(0, 'piece', i); y, x = np.mgrid[:shape[0], :shape[1]]
    mask = defective & (np.hypot(y - rng.integers(10, 30), x - rng.integers(10, 40)) < 5)
    grey = np.clip(rng.normal(100, 6, shape) + 90*mask, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2), mask


def add_line(root: Path, pipeline: str, params: str, good: int, first: int) -> Path:
    "Pieces in MVTec-AD's layout, `good` good ones to judge, drawn from number `first` on; pipelines, and a params file"
    shutil.copytree(ROOT/'nbs'/'pipelines', root/'nbs'/'pipelines', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    folder = root/'data'/'line'
    for i in range(8): write_image(folder/'train'/'good'/f'{i}.png', piece(i, False)[0])
    for i in range(good): write_image(folder/'test'/'good'/f'{i}.png', piece(first + i, False)[0])
    for i in range(8):
        picture, mask = piece(2*first + i, True)
        write_image(folder/'test'/'spot'/f'{i}.png', picture)
        write_image(folder/'ground_truth'/'spot'/f'{i}_mask.png', mask)
    (root/'params'/pipeline).mkdir()
    (root/'params'/pipeline/'line.yaml').write_text(params)
    return root


def wait_for(condition, seconds=90):
    "Until the condition holds"
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(.05)


def run_cells(pipeline: str, root: Path, until='', **given) -> dict:
    "What a pipeline's code cells leave, run in this process: a kernel for each mistake would take minutes; as far as the cell with `until`"
    names, old = dict(__name__='pipeline'), dict(os.environ)
    os.environ |= dict(INSPECT_LIB_ROOT=str(root), TQDM_DISABLE='1', MPLBACKEND='agg')
    try:
        for cell in nbformat.read(ROOT/'nbs'/'pipelines'/f'{pipeline}.ipynb', 4).cells:
            if cell.cell_type == 'code': exec(cell.source, names)
            if 'parameters' in cell.metadata.get('tags', []): names |= given
            if until and until in cell.source: break
    finally:
        os.environ.clear(); os.environ.update(old)
        plt.close('all')
    return names


@pytest.fixture
def workspace(tmp_path):
    "An empty workspace of its own"
    (tmp_path/'settings.ini').write_text(SETTINGS)
    (tmp_path/'requirements.lock').write_text('numpy==2.4.6\n')
    for name in ('data', 'params', 'reports'): (tmp_path/name).mkdir()
    return tmp_path


@pytest.fixture
def cli(workspace):
    "Run `inspect-lib ...` in the workspace; with `wait=False`, start it"
    env = {k: v for k, v in os.environ.items() if not k.startswith('INSPECT_LIB_')}
    env['INSPECT_LIB_ROOT'] = str(workspace)
    def run(*args, wait=True, **more):
        given = dict(args=[BIN/'inspect-lib', *args], cwd=workspace, env=env | more, text=True)
        if wait: return subprocess.run(**given, capture_output=True, timeout=300)
        return subprocess.Popen(**given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return run


@pytest.fixture
def here(workspace, monkeypatch, capsys):
    "The command line in the workspace without a process of its own: everything else is as real, and a test is seconds shorter"
    def run(*args, **more):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith('INSPECT_LIB_')]: patch.delenv(name)
            for name, value in (dict(INSPECT_LIB_ROOT=str(workspace)) | more).items(): patch.setenv(name, value)
            patch.chdir(workspace)
            capsys.readouterr()
            code, said = main(list(args)), capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)
    return run


@pytest.fixture
def real_data():
    "Folder with the public inspection sets, where this machine has them"
    folder = os.environ.get('INSPECT_LIB_TEST_DATA')
    if not folder: pytest.skip('real pictures are named by INSPECT_LIB_TEST_DATA, which is not set')
    return Path(folder)


@pytest.fixture
def run_real(real_data, tmp_path):
    "A params file of the repository on real pictures, its metrics; reports go elsewhere"
    env = os.environ | dict(INSPECT_LIB_ROOT=str(ROOT), INSPECT_LIB_DATA=f'data:{real_data}', INSPECT_LIB_REPORTS=str(tmp_path))
    def run(pipeline: str, name: str) -> dict:
        done = subprocess.run([BIN/'inspect-lib', 'run', pipeline, name], env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return json.loads(next(tmp_path.glob(f'{pipeline}/{name}/*/metrics.json')).read_text())['metrics']
    return run


@pytest.fixture(scope='session')
def browser():
    "A real browser, without a display"
    playwright = pytest.importorskip('playwright.sync_api')
    if not os.path.exists(CHROMIUM):
        if os.environ.get('CI') == 'true':
            pytest.fail('chromium is needed to test the reports: apt-get install chromium')
        pytest.skip('chromium is not installed (apt-get install chromium), so the reports are not looked at')
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_file(browser):
    "Open an HTML file; what the browser complains about or asks for is collected"
    contexts = []

    def open_(path, width=1280):
        contexts.append(browser.new_context(viewport=dict(width=width, height=900)))
        tab = contexts[-1].new_page(); tab.complaints, tab.asked = [], []
        tab.on('console', lambda message: tab.complaints.append(message.text))
        tab.on('pageerror', lambda error: tab.complaints.append(str(error)))
        tab.on('dialog', lambda dialog: (tab.complaints.append(f'dialog {dialog.message}'), dialog.dismiss()))
        tab.on('request', lambda request: tab.asked.append(request.url))
        tab.goto(Path(path).as_uri(), wait_until='load')
        return tab
    yield open_
    for context in contexts: context.close()
