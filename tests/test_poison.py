"""A poisoned record stops nothing: it is skipped, named, and `gc --broken` offers to remove it; a finished run stays a success."""
import json
import shutil

import pytest

from conftest import add_pipeline
from inspect_lib import cli
from inspect_lib.cli import main
from inspect_lib.core.error import UserError
from inspect_lib.core.file import canonical, text_hash
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.run.gc import gc
from inspect_lib.run.key import run_key
from inspect_lib.run.store import ORDER, RECORD, list_runs, note_finished, seal, verify_run

POISON = ['[1]', '1', '"x"', 'null', '{', '', '{"runs": 3}', '{"runs": [1]}', '{"runs": [{"pipeline": 1}]}', '{"state": [], "started": 5, "headline": {"a": 1}}',
          '[' * 5000, '\ud800'.encode('utf-8', 'surrogatepass'), b'\xff\xfe', '{"runs": {"a": "b"}, "spec": null}']
FIELDS = ['started', 'headline', 'inputs', 'params', 'metrics', 'identity', 'outputs', 'state', 'error', 'duration_s', 'pipeline', 'name', 'key', 'path', 'seal', 'attempts', 'git', 'versions']
EMPTY = run_key(dict(params=dict(n=1), inputs={})) # Of what the runs of `made` are made of
ODD = [None, 1, 'x', [1], {'a': [1]}, True, 1e308]


@pytest.fixture
def toy(workspace, monkeypatch):
    "One finished run, one sweep"
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    add_pipeline(workspace, '96_toy', 'n: int = 1  # A number', 'pass')
    made(workspace, 'a', EMPTY)
    (workspace/'reports'/'sweeps'/'s').mkdir(parents=True)
    (workspace/'reports'/'sweeps'/'s'/'sweep.json').write_text(json.dumps(dict(runs=[dict(pipeline='96_toy', name='a', key=EMPTY)], state='done', started='2026-01-01T00:00:00+00:00')))
    return workspace


def made(root, name, key, started='2026-01-01T00:00:00+00:00'):
    work = root/'reports'/'96_toy'/name/f'.work-{key}'
    work.mkdir(parents=True); (work/'x.txt').write_text('x')
    return seal(work, dict(pipeline='96_toy', name=name, key=key, state='done', started=started, headline='fine', inputs={}, params=dict(n=1),
                           metrics={}, identity=dict(params=dict(n=1), inputs={})), work.with_name(key))


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def commands_work(capsys):
    for command in (['list'], ['report'], ['gc'], ['gc', '--broken']): assert main(command) == 0, (command, capsys.readouterr())
    assert main(['verify']) in (0, 1)
    return capsys.readouterr()


@pytest.mark.parametrize('content', POISON, ids=range(len(POISON)))
def test_a_poisoned_sweep_or_run(toy, capsys, content):
    write(toy/'reports'/'sweeps'/'bad'/'sweep.json', content)
    write(toy/'reports'/'96_toy'/'bad'/('b'*16)/RECORD, content)
    said = commands_work(capsys)
    assert 'fine' in (toy/'reports'/'index.html').read_text() and 'bad' in said.err
    made(toy, 'a', 'c'*16, '2025-01-01T00:00:00+00:00') # It could go, but a sweep that nobody can read may speak of it
    assert gc(open_workspace(toy)) == [] or content == '{"runs": {"a": "b"}, "spec": null}'
    assert main(['gc', '--broken', '--delete']) == 0
    assert not (toy/'reports'/'sweeps'/'bad').exists() and (toy/'reports'/'96_toy'/'a'/EMPTY).is_dir() and (toy/'reports'/'sweeps'/'s').is_dir()


def test_every_field_of_a_record_may_hold_anything(toy, capsys):
    good = json.loads((toy/'reports'/'96_toy'/'a'/EMPTY/RECORD).read_text())
    sweep = json.loads((toy/'reports'/'sweeps'/'s'/'sweep.json').read_text())
    for i, field in enumerate(FIELDS):
        for j, odd in enumerate(ODD):
            write(toy/'reports'/'96_toy'/'odd'/f'{i*100 + j:016x}'/RECORD, json.dumps(good | {field: odd}))
            write(toy/'reports'/'96_toy'/'odd'/f'failed-{i*100 + j:016x}'/RECORD, json.dumps(good | {field: odd}))
            write(toy/'reports'/'sweeps'/f'odd{i}-{j}'/'sweep.json', json.dumps(sweep | {field: odd, 'runs': odd if j % 2 else sweep['runs']}))
    commands_work(capsys)
    page = (toy/'reports'/'index.html').read_text()
    assert page.count('>Done<') >= 1 and '✓ Done' not in page, 'a run that ended is there beside the odd ones, and to have ended is not to be good'


def test_verify_says_of_any_sealed_record_whether_it_is_one(toy):
    "Sealed anew, so that only the types are odd: the record or one sentence, never a traceback"
    file = toy/'reports'/'96_toy'/'a'/EMPTY/RECORD
    good = {key: value for key, value in json.loads(file.read_text()).items() if key != 'seal'}
    for field in FIELDS:
        for odd in [*ODD, {}, [], [[]], {'n': None}, {'params': 1}, {'params': [], 'inputs': 2}]:
            record = good | ({} if field == 'seal' else {field: odd})
            if isinstance(record.get('identity'), dict) and field == 'identity': record['key'] = run_key(odd)
            file.write_text(json.dumps(record | dict(seal=text_hash(canonical(record)))))
            try: verify_run(file.parent)
            except UserError as error: assert '\n' not in str(error)


def test_a_page_that_cannot_be_written_takes_nothing_back(toy, capsys, monkeypatch):
    def fails(): raise RuntimeError('no page today')
    monkeypatch.setattr(cli, 'write_index', fails)
    monkeypatch.setattr('inspect_lib.run.executor.run_pipeline', lambda *_: (toy/'reports'/'96_toy'/'a'/EMPTY, False))
    assert main(['run', '96_toy', 'a']) == 0
    said = capsys.readouterr()
    assert 'Done: ' in said.out and 'was not written: no page today' in said.err
    monkeypatch.undo(); monkeypatch.setenv('INSPECT_LIB_ROOT', str(toy)); monkeypatch.setattr(cli, 'write_index', fails)
    assert main(['run', '96_toy', 'none']) == 1 # The first cause is the one that is said last
    assert 'no params file' in capsys.readouterr().err.splitlines()[-1]


def test_the_newest_run_is_the_one_that_was_finished_last(toy):
    "Whatever the clock said"
    ws = open_workspace(toy)
    for key, started in (('1', '2026-05-05'), ('2', '2020-01-01'), ('3', '2031-01-01')): note_finished(made(toy, 'b', key*16, f'{started}T00:00:00+00:00'))
    note_finished(toy/'reports'/'96_toy'/'b'/('2'*16))
    assert [r['key'][0] for r in list_runs(ws) if r['name'] == 'b'] == ['2', '3', '1']
    assert sorted(p['path'][-1] for p in gc(ws)) == ['1', '3']
    with open(toy/'reports'/ORDER, 'ab') as file: file.write(b'\xff\0nonsense\n')
    assert list_runs(ws)[0]['key'][0] == '2'
    shutil.rmtree(toy/'reports'/'96_toy'/'b'/('2'*16))
    assert [r['key'][0] for r in list_runs(ws) if r['name'] == 'b'] == ['3', '1']
