"What people meet in Jupyter: notebooks that stay as they are, one sentence for an error of theirs, short results."
import inspect
import re
import shutil

import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from traitlets.config import PyFileConfigLoader

import inspect_lib
from conftest import ROOT, add_pipeline
from inspect_lib.cli import main
from inspect_lib.data.inventory import Inventory
from inspect_lib.model.contract import Prediction
from inspect_lib.model.similarity import References, classify
from inspect_lib.run.work import begin, finish

PIPELINES = sorted((ROOT/'nbs'/'pipelines').glob('[!_.]*.ipynb'))


@pytest.fixture(scope='module')
def contents(tmp_path_factory):
    "The contents API as `make lab` starts it, on a copy of the notebooks"
    root = tmp_path_factory.mktemp('lab')
    for name in ('pyproject.toml', 'settings.ini'): shutil.copy(ROOT/name, root)
    shutil.copytree(ROOT/'nbs', root/'nbs')
    return LargeFileManager(root_dir=str(root), config=PyFileConfigLoader('jupyter_server_config.py', str(ROOT/'tools')).load_config())


def opened(contents, path: str) -> dict:
    "A notebook as JupyterLab 4.6 holds it once its kernel is there and its cells were run without another result"
    model = contents.get(path, content=True, type='notebook')
    nb = model['content']
    nb['metadata']['kernelspec'] = dict(display_name='Python 3 (ipykernel)', language='python', name='python3')
    nb['metadata']['language_info'] = dict(codemirror_mode=dict(name='ipython', version=3), file_extension='.py', mimetype='text/x-python',
                                           name='python', nbconvert_exporter='python', pygments_lexer='ipython3', version='3.11.99')
    for count, cell in enumerate(nb['cells'], 1):
        cell['metadata']['trusted'] = True
        if cell['cell_type'] == 'code': cell['execution_count'] = count; cell['metadata']['execution'] = {'iopub.status.busy': '2026-01-01'}
    return dict(type='notebook', format='json', content=nb)


@pytest.mark.parametrize('file', [*PIPELINES, ROOT/'nbs'/'index.ipynb', ROOT/'nbs'/'cli.ipynb'], ids=lambda p: p.stem)
def test_opening_and_saving_changes_no_byte(contents, file):
    path = file.relative_to(ROOT).as_posix()
    contents.save(opened(contents, path), path)
    with open(f'{contents.root_dir}/{path}', 'rb') as saved: assert saved.read() == file.read_bytes()


def test_make_lab_uses_that_configuration(): assert 'JUPYTER_CONFIG_PATH=tools jupyter lab' in (ROOT/'Makefile').read_text()


def test_error_of_the_user_is_one_sentence_and_the_notebook_stops(workspace, monkeypatch, capsys):
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    add_pipeline(workspace, '40_toy', 'n: int = 3', "from inspect_lib.core.error import expect\nexpect(n > 3, 'There are 3 pictures; 4 are needed.')",
                 "open('reached', 'w')")
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    assert main(['run', '40_toy', 'a']) == 1 and capsys.readouterr().err == 'inspect-lib: There are 3 pictures; 4 are needed.\n'
    kept, = workspace.glob('reports/40_toy/a/failed-*/notebook.ipynb')
    cells = [c for c in nbformat.read(kept, 4).cells if c.cell_type == 'code' and 'papermill-error-cell-tag' not in c.metadata.get('tags', [])]
    error, = [o for c in cells for o in c.outputs if o.output_type == 'error']
    assert error.ename == 'UserError' and error.traceback == ['UserError: There are 3 pictures; 4 are needed.']
    assert not cells[-1].outputs and cells[-1].execution_count is None and not list(workspace.rglob('reached'))


def test_results_are_short_and_escaped():
    prediction = Prediction(pred_score=np.linspace(0, 1, 500), pred_label=np.array(['IO', '<script>']*250, object), anomaly_map=(np.ones((99, 99)),)*500)
    references = References(dict(name='inspect-tiny'), np.eye(300, dtype=np.float32), np.array(['a', 'b', 'c']*100), np.arange(300).astype(str), (b'',)*300)
    for thing in (prediction, references, classify(references, np.eye(300, dtype=np.float32)), Inventory(2, 2, {'<b>': 2})):
        assert len(repr(thing)) < 200 and '\n' not in repr(thing), repr(thing)
        if hasattr(thing, '_repr_html_'): assert '<script>' not in (page := thing._repr_html_()) and '<b>' not in page and len(page) < 5000
    assert repr(prediction) == 'Prediction of 500 pictures: IO 250, <script> 250 (pred_score, pred_label, anomaly_map)'


def test_a_report_is_a_link_that_opens_from_the_notebooks_folder(workspace, monkeypatch):
    "By hand relative to the notebook's folder, in the notebook that a recorded run keeps beside it; plain text for terminals"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    add_pipeline(workspace, '40_toy', 'n: int = 3', "from inspect_lib.run.work import begin, finish\nrun = begin('40_toy', globals())\nfinish(run, dict(n=n), f'{n} <pictures>.', '<!doctype html><title>toy</title>')")
    (workspace/'params'/'40_toy').mkdir(); (workspace/'params'/'40_toy'/'a.yaml').write_text('')
    assert main(['run', '40_toy', 'a']) == 0
    folder, = (p.parent for p in workspace.glob('reports/40_toy/a/*/report.html'))
    output, = [o for c in nbformat.read(folder/'notebook.ipynb', 4).cells for o in c.get('outputs', []) if o.output_type == 'execute_result']
    assert output.data['text/plain'] == f'3 <pictures>.\nReport: {folder.relative_to(workspace)}/report.html'
    page = output.data['text/html']
    assert '3 &lt;pictures&gt;.' in page and (folder/re.search('href="(.*?)"', page)[1]).is_file()
    monkeypatch.chdir(workspace/'nbs'/'pipelines')
    link = finish(begin('40_toy', dict(n=3)), dict(n=3), 'By hand.', '<!doctype html><title>toy</title>')
    assert (workspace/'nbs'/'pipelines'/re.search('href="(.*?)"', link._repr_html_())[1]).is_file() and repr(link).startswith('By hand.\nReport: reports/40_toy/')


@pytest.mark.parametrize('name', inspect_lib.__all__)
def test_help_of_every_public_name_documents_its_arguments(name):
    "What `?` shows: a docstring, and a line of its own for every argument"
    shell, thing = InteractiveShell.instance(), getattr(inspect_lib, name)
    shell.push({name: thing})
    told = shell.object_inspect(name)['docstring']
    names = [p for p in inspect.signature(thing).parameters if p != 'self']
    assert names and all(re.search(rf'(?m)^{p} :', told) for p in names), told
    assert len(re.findall(r'(?m)^    \S', told)) >= len(names)/3, 'few arguments are explained'
