"The command line as people and scripts use it, called in this process wherever that shows the same."
import json
import os
import signal
import stat
import subprocess

import pytest
import torch

import inspect_lib
from conftest import BIN, ROOT, add_pipeline, wait_for
from inspect_lib.cli import _commands, _parser, main
from inspect_lib.core.file import write_json
from inspect_lib.net.weights import save_model, write_state

BODY = ("from inspect_lib.run.work import begin, finish\nrun = begin('40_toy', globals())",
        "import os, time\nwhile wait and not (run.folder.parents[2]/'go').exists(): time.sleep(.05)",
        "finish(run, dict(f1=dict(value=size/10, low=0., high=1.)), f'{size} pictures.', '<p>report</p>')")


@pytest.fixture
def toy(workspace, monkeypatch):
    "A workspace with a pipeline and two params files, and the working directory in it"
    add_pipeline(workspace, '40_toy', 'size: "int >= 1" = 3  # Pictures\nwait: bool = False  # For a file reports/go', *BODY)
    (workspace/'params'/'40_toy').mkdir()
    for name in ('a', 'other'): (workspace/'params'/'40_toy'/f'{name}.yaml').write_text('size: 3\n')
    for name in [n for n in os.environ if n.startswith('INSPECT_LIB_')]: monkeypatch.delenv(name)
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace)); monkeypatch.chdir(workspace)
    return workspace


@pytest.fixture
def said(capsys):
    "Run a command in this process: its status, stdout and stderr"
    def run(*argv):
        try: status = main(list(argv))
        except SystemExit as end: status = end.code
        return status, *capsys.readouterr()
    return run


@pytest.mark.parametrize(('mask', 'rights'), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path, mask, rights):
    before = os.umask(mask)
    try:
        save_model(tmp_path/'model.safetensors', torch.nn.Linear(2, 1), {})
        write_state(tmp_path/'state.safetensors', dict(w=torch.zeros(3)))
        write_json(tmp_path/'run.json', {})
    finally: os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {rights}


def test_version_and_mistyped_commands(said):
    assert said('--version') == (0, f'inspect-lib {inspect_lib.__version__}\n', '')
    for argv in ((), ('rnu',), ('run',), ('run', 'a', 'b', '--workers', '2'), ('sweep', 'a', '--workers', '0'), ('completion', 'fish')):
        status, out, err = said(*argv)
        assert status == 2 and not out and 'error:' in err and 'Traceback' not in err, argv


def test_params_alone_lists_pipelines(toy, said):
    assert said('params') == (0, f"40_toy           \n{'':<16} params/40_toy: a, other\n", '')
    assert said('params', '40_toy')[1].startswith('size: int >= 1 = 3  # Pictures')
    status, out, err = said('params', '40_tyo')
    assert status == 1 and not out and "Did you mean '40_toy'?" in err


@pytest.mark.parametrize('argv, sentence', [
    (('run', '40_toy', 'b'), 'b.yaml. There are: a, other.'), (('run', '40_toy', 'a', '-p', 'size'), '-p size: name=value is expected.'),
    (('run', '40_toy', 'a', '-p', 'size=1', '-p', 'size=2'), "-p gives 'size' twice."), (('run', '40_toy', 'a', '-p', 'm=1'), "-p: unknown parameter 'm'"),
    (('run', '40_toy', 'a', '-p', 'size=x'), "-p: parameter 'size' must be int >= 1, got 'x'."), (('run', '40_toy', 'a', '-p', 'size=[1'), '-p size=[1'),
    (('run', '40_toy', 'a', '-p', 'size=0'), "-p: parameter 'size' must be int >= 1, got 0."), (('sweep', 'none'), "There is no sweep 'none'"),
    (('inspect', 'reports/40_toy/none', '.'), 'has no finished run'), (('table', 'none'), 'none'), (('verify', 'reports/40_toy/none'), 'has no finished run'), (('reproduce', 'abc'), 'abc'),
])
def test_errors_of_the_user_are_one_sentence_and_status_1(toy, said, argv, sentence):
    status, out, err = said(*argv)
    assert status == 1 and not out and sentence in err and err.startswith('inspect-lib: '), err
    assert 'Traceback' not in err and err.count('\n') == 1, err


def test_json_is_one_document(toy, said, monkeypatch):
    status, out, err = said('run', '40_toy', 'a', '--json')
    run = json.loads(out)
    assert status == 0 and run['made_now'] and run['headline'] == '3 pictures.' and run['metrics']['f1']['value'] == .3
    assert (toy/run['path']/'report.html').is_file() and run['params'] == dict(size=3, wait=False) and 'identity' not in run
    assert not json.loads(said('run', '40_toy', 'a', '--json')[1])['made_now']
    listed, = json.loads(said('list', '--json')[1])
    assert {k: listed[k] for k in ('state', 'key', 'path', 'headline')} == {k: run[k] for k in ('state', 'key', 'path', 'headline')}
    assert json.loads(said('verify', '--json')[1]) == [dict(path=run['path'], good=True, error='')]
    assert said('run', '40_toy', 'a', '-q') == (0, '', '') and said('verify', '-q') == (0, '', '')
    (toy/run['path']/'report.html').write_text('other')
    status, out, err = said('verify', '--json')
    damaged, = json.loads(out)
    assert status == 1 and not damaged['good'] and 'report.html was changed' in damaged['error'] and not err
    status, out, err = said('verify', '-q')
    assert status == 1 and out.startswith('DAMAGED') and out.count('\n') == 1


def test_table_as_json(toy, said):
    (toy/'params'/'sweeps').mkdir()
    (toy/'params'/'sweeps'/'s.yaml').write_text('steps: {a: {notebook: 40_toy, file: a, grid: {size: [1, 2]}}}\nworkers: 1\n')
    assert said('sweep', 's', '-q') == (0, '', '')
    rows = json.loads(said('table', 's', '--json')[1])
    assert [(r['state'], r['params.size'], r['metrics.f1.value'], r['error']) for r in rows] == [('done', 1, .1, None), ('done', 2, .2, None)]


def test_failure_names_its_reason_in_the_list(toy, said):
    add_pipeline(toy, '40_toy', 'size: int = 3', 'from inspect_lib.core.error import UserError', "raise UserError('There are no pictures.')")
    assert said('run', '40_toy', 'a')[0] == 1
    status, out, _ = said('list')
    assert out.rstrip().endswith('  There are no pictures.') and 'failed' in out
    assert json.loads(said('list', '--json')[1])[0]['error']['text'] == 'There are no pictures.'


def test_interrupt_is_130_and_the_same_command_goes_on(toy, cli):
    process = cli('run', '40_toy', 'a', '-p', 'wait=true', wait=False)
    wait_for(lambda: list(toy.glob('reports/40_toy/a/.work-*/notebook.ipynb')))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and not out and err == 'inspect-lib: Interrupted. The same command goes on from here.\n', err
    (toy/'reports'/'go').touch()
    assert cli('run', '40_toy', 'a', '-p', 'wait=true').returncode == 0


def test_progress_without_a_terminal(toy, cli):
    process = cli('run', '40_toy', 'a', '-p', 'wait=true', wait=False, TQDM_DISABLE='')
    line = process.stderr.readline()
    (toy/'reports'/'go').touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and line.startswith('inspect-lib: 5 s') and out.startswith('3 pictures.')


def complete(*words, folder=ROOT) -> list[str]:
    "What bash offers for the last word"
    script = f"""source <('{BIN}/inspect-lib' completion bash); COMP_WORDS=({' '.join(f"'{w}'" for w in words)}); COMP_CWORD={len(words) - 1}
_inspect_lib; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(['bash', '-c', script], cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_pipelines_and_files():
    assert complete('inspect-lib', '') == list(_commands(_parser()))
    assert complete('inspect-lib', 'sweep', '--f') == ['--fail-fast'] and complete('inspect-lib', 'ver') == ['verify']
    assert complete('inspect-lib', 'run', '30') == ['30_similarity'] and complete('inspect-lib', 'sweep', 'demo') == ['demo']
    assert complete('inspect-lib', 'run', '30_similarity', 'cast') == ['casting']


@pytest.mark.parametrize('argv', [('list',), ('params', '30_similarity')])
def test_a_reader_that_has_enough_is_no_error(argv):
    done = subprocess.run(['bash', '-o', 'pipefail', '-c', f"'{BIN}/inspect-lib' {' '.join(argv)} | true"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
