"""Archives from outside: what is evil or damaged is refused and leaves nothing; what is good opens elsewhere."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest
from markupsafe import Markup

from conftest import BIN, SETTINGS, add_pipeline
from inspect_lib.core.error import UserError
from inspect_lib.core.file import canonical, text_hash, write_json
from inspect_lib.core.paths import workspace as open_workspace
from inspect_lib.report.document import document
from inspect_lib.run.archive import export_archive, import_archive
from inspect_lib.run.unpack import Limits
from inspect_lib.run.key import run_key
from inspect_lib.run.gc import gc
from inspect_lib.run.reproduce import reproduce
from inspect_lib.run.shell import run_in_process
from inspect_lib.run.store import runs_folder, list_runs, seal, verify_run

PARTS = dict(params=dict(k=5))
KEY = run_key(PARTS)
RUN = f'40_toy/a/{KEY}'
UNSIGNED = 'Not signed: anybody could have made this archive.'


def make_run(root, parts=PARTS, **more):
    "A finished run, and its workspace"
    ws = open_workspace(root)
    key = run_key(parts)
    (work := runs_folder(ws, '40_toy', 'a')/f'.work-{key}').mkdir(parents=True)
    (work/'x.txt').write_text('x'*1000)
    record = dict(pipeline='40_toy', name='a', key=key, identity=parts, state='done', started='2026-01-01')
    seal(work, record | more, work.parent/key)
    return ws


@pytest.fixture
def good(workspace):
    "A good archive, taken apart: manifest, and files as (path, bytes)"
    ws = make_run(workspace)
    path = export_archive(ws, list_runs(ws), workspace/'good.tar.gz')
    with tarfile.open(path) as tar: files = [(m.name, tar.extractfile(m).read()) for m in tar]
    return json.loads(files[0][1]), files[1:]


@pytest.fixture
def elsewhere(tmp_path_factory):
    "Another machine's workspace"
    (root := tmp_path_factory.mktemp('elsewhere')/'there').mkdir()
    (root/'settings.ini').write_text(SETTINGS)
    (root/'reports').mkdir()
    return open_workspace(root)


def entry(name, data=b'', kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in more.items(): setattr(info, key, value)
    return info, data


def pack(path, entries, manifest=None, format=tarfile.USTAR_FORMAT, tail=b''):
    "An archive of whatever is given"
    raw = io.BytesIO()
    first = [] if manifest is None else [entry('manifest.json', json.dumps(manifest).encode())]
    with tarfile.open(fileobj=raw, mode='w', format=format) as tar:
        for info, data in [*first, *entries]: tar.addfile(info, io.BytesIO(data))
    path.write_bytes(gzip.compress(raw.getvalue() + tail))
    return path


def refuse(path, ws, why, limits=Limits()):
    before = sorted(ws.root.parent.rglob('*'))
    with pytest.raises(UserError, match=why) as caught: import_archive(path, ws, limits)
    assert '\n' not in str(caught.value)
    assert sorted(ws.root.parent.rglob('*')) == before, 'something was left'


def listed(files): return {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in files}


def test_the_way_there(good, workspace, elsewhere, here):
    said = import_archive(workspace/'good.tar.gz', elsewhere)
    assert said == [f'{RUN} was taken in.', UNSIGNED] and verify_run(elsewhere.reports/RUN)['key'] == KEY
    there = dict(INSPECT_LIB_ROOT=str(elsewhere.root))
    verified = here('verify', **there)
    assert verified.returncode == 0 and f'reports/{RUN}' in verified.stdout
    assert f'{KEY}' in (lines := here('list', **there).stdout) and '[imported from good.tar.gz]' in lines
    assert here('report', **there).returncode == 0
    assert 'imported from good.tar.gz, not made here' in (elsewhere.reports/'index.html').read_text()
    again = here('reproduce', KEY, **there)
    assert again.returncode == 1 and 'came from good.tar.gz' in again.stderr and '--trust' in again.stderr
    assert import_archive(workspace/'good.tar.gz', elsewhere) == [f'{RUN} is here already.', UNSIGNED]
    (elsewhere.reports/RUN/'x.txt').write_text('changed')
    assert 'is here already, but damaged' in import_archive(workspace/'good.tar.gz', elsewhere)[0]
    assert (elsewhere.reports/RUN/'x.txt').read_text() == 'changed'


def test_another_run_of_the_same_key_is_left(good, workspace, elsewhere):
    make_run(elsewhere.root, started='2026-02-02')
    assert 'made by another run of the same key' in import_archive(workspace/'good.tar.gz', elsewhere)[0]
    assert verify_run(elsewhere.reports/RUN)['started'] == '2026-02-02'


@pytest.mark.parametrize('path', [
    '/etc/cron.d/x', '../../x', f'{RUN}/../../../../x', f'{RUN}/./x', f'{RUN}//x', f'{RUN}/.hidden', f'{RUN}/a\\b',
    f'{RUN}/a\nb', f'{RUN}/\ud800', f'{RUN}/' + 'x'*300, '40_toy/a/x', 'x', '', '40_toy/a/failed-0000000000000000/x',
    '.x/a/0000000000000000/x', 'sweeps/k/x', 'index.html'])
def test_paths_that_lead_elsewhere(good, tmp_path, elsewhere, path):
    manifest, files = good
    manifest['files'][path] = [1, '0'*64]
    refuse(pack(tmp_path/'bad.tar.gz', [entry(*f) for f in files], manifest), elsewhere, 'archive|name of a|Unicode')


@pytest.mark.parametrize('kind, more', [
    (tarfile.SYMTYPE, dict(linkname='/etc/passwd')), (tarfile.LNKTYPE, dict(linkname='../../settings.ini')),
    (tarfile.CHRTYPE, dict(devmajor=1, devminor=3)), (tarfile.BLKTYPE, {}), (tarfile.FIFOTYPE, {}),
    (tarfile.DIRTYPE, {}),
])
def test_what_is_no_plain_file(good, tmp_path, elsewhere, kind, more):
    manifest, files = good
    evil = entry(files[0][0], b'', kind, **more)
    bad = pack(tmp_path/'bad.tar.gz', [evil, *(entry(*f) for f in files[1:])], manifest)
    refuse(bad, elsewhere, 'no plain file')
    assert not (elsewhere.root/'reports'/RUN).exists()


@pytest.mark.parametrize('format', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_heads_of_any_length(good, tmp_path, elsewhere, format):
    "A name of 50 MB would be read into memory by a general reader"
    manifest, files = good
    evil = entry('x'*50_000_000)
    refuse(pack(tmp_path/'bad.tar.gz', [evil], manifest, format), elsewhere, 'no plain file')


def test_bombs(good, tmp_path, elsewhere):
    manifest, files = good
    zeros = (f'{RUN}/zeros', bytes(20_000_000))
    manifest['files'] |= listed([zeros])
    bomb = pack(tmp_path/'bomb.tar.gz', [entry(*f) for f in [*files, zeros]], manifest)
    assert bomb.stat().st_size < 50_000
    refuse(bomb, elsewhere, 'times its size')
    refuse(bomb, elsewhere, 'at most 1000000 are allowed', Limits(ratio=10**6, total=10**6))
    refuse(bomb, elsewhere, 'at most 1000000 bytes', Limits(ratio=10**6, file=10**6))
    refuse(bomb, elsewhere, '1 to 2 files', Limits(files=2))
    refuse(bomb, elsewhere, 'does not begin with manifest.json', Limits(manifest=100))
    manifest['files'][zeros[0]][0] = 10 # A size that is told too small
    all_of = [entry(*f) for f in [*files, zeros]]
    refuse(pack(tmp_path/'liar.tar.gz', all_of, manifest), elsewhere, 'where the manifest lists')
    del manifest['files'][zeros[0]] # Not told at all
    refuse(pack(tmp_path/'more.tar.gz', all_of, manifest), elsewhere, 'more than its manifest lists')
    tail = pack(tmp_path/'tail.tar.gz', all_of[:-1], manifest, tail=bytes(20_000_000))
    refuse(tail, elsewhere, 'behind the end')


def test_files_twice_or_two_kinds(good, tmp_path, elsewhere):
    manifest, files = good
    twice = [entry(*f) for f in [files[0], *files]]
    refuse(pack(tmp_path/'a.tar.gz', twice, manifest), elsewhere, 'where the manifest lists')
    text = json.dumps(manifest).replace(f'"{RUN}/x.txt"', f'"{RUN}/run.json"')
    raw = [entry('manifest.json', text.encode()), *(entry(*f) for f in files)]
    refuse(pack(tmp_path/'b.tar.gz', raw), elsewhere, 'is there twice')
    manifest['files'][f'{RUN}/x.txt/y'] = [1, '0'*64]
    refuse(pack(tmp_path/'c.tar.gz', [entry(*f) for f in files], manifest), elsewhere, 'a file and a folder')


@pytest.mark.parametrize('manifest', [
    [], 3, {}, dict(format=2), dict(format=1), dict(format=1, files={}), dict(format=1, files=[]),
    *(dict(format=1, files={RUN + '/x': told}) for told in (3, [-1, ''], [True, ''], [1e3, ''], [1], [1, 1])),
    *(dict(format=1, files={RUN + '/x': [1, '']}, sweep=sweep) for sweep in ('../x', ['k'])),
])
def test_wrong_manifests(tmp_path, elsewhere, manifest):
    refuse(pack(tmp_path/'bad.tar.gz', [entry(f'{RUN}/x', b'x')], manifest), elsewhere, '.')


def test_what_is_no_archive(good, workspace, tmp_path, elsewhere):
    whole = (workspace/'good.tar.gz').read_bytes()
    cases = [('none', b'', 'middle of'), ('text', b'hello', 'damaged or no .tar.gz'),
             ('half', whole[:len(whole)//2], 'damaged'), ('short', whole[:-6], 'damaged'),
             ('tail', whole + b'garbage', 'damaged'), ('deep', gzip.compress(b'['*10**6), 'cannot be read'),
             ('empty', gzip.compress(bytes(10240)), 'does not begin')]
    for name, data, why in cases:
        (tmp_path/f'{name}.tar.gz').write_bytes(data)
        refuse(tmp_path/f'{name}.tar.gz', elsewhere, why)
    nested = [entry('manifest.json', b'['*10**5)]
    refuse(pack(tmp_path/'nested.tar.gz', nested), elsewhere, 'manifest.json, is not valid JSON')
    refuse(tmp_path/'missing.tar.gz', elsewhere, 'There is no archive')
    refuse(pack(tmp_path/'other.tar.gz', [entry('README', b'x')]), elsewhere, 'does not begin with manifest.json')


def test_tampered_files(good, tmp_path, elsewhere):
    "With the manifest as it was; with the manifest changed too; with the seal made anew"
    manifest, files = good
    files = dict(files)
    put = lambda name, changed: pack(tmp_path/f'{name}.tar.gz', [entry(*f) for f in sorted(changed.items())],
                                     manifest | dict(files=listed(changed.items())))
    changed = files | {f'{RUN}/x.txt': b'y'*1000}
    old = pack(tmp_path/'a.tar.gz', [entry(*f) for f in sorted(changed.items())], manifest)
    refuse(old, elsewhere, 'was changed after the archive')
    refuse(put('b', changed), elsewhere, 'x.txt was changed after the run')
    refuse(put('c', files | {f'{RUN}/more': b''}), elsewhere, 'more was added')
    refuse(put('d', {f'{RUN}/x.txt': files[f'{RUN}/x.txt']}), elsewhere, 'run.json does not exist')
    record = json.loads(files[f'{RUN}/run.json'])
    def sealed(**more):
        new = {k: v for k, v in (record | more).items() if k != 'seal'}
        return files | {f'{RUN}/run.json': json.dumps(new | dict(seal=text_hash(canonical(new)))).encode()}
    refuse(put('e', sealed(key='0'*16)), elsewhere, 'a run whose key is')
    refuse(put('f', sealed(identity=dict(params=dict(k=6)))), elsewhere, 'key does not follow')
    refuse(put('g', sealed(state='failed')), elsewhere, 'another run than its path says')
    refuse(put('h', sealed(outputs=3)), elsewhere, r'run\.json, ')
    refuse(put('i', files | {f'{RUN}/run.json': b'{"x": NaN}'}), elsewhere, 'run.json')
    assert import_archive(put('j', files), elsewhere) == [f'{RUN} was taken in.', UNSIGNED]


def sealed_run(files, sweep=''):
    "Manifest and entries of an archive whose run holds these files, sealed as ours are"
    inside = {f'{RUN}/{name}': data for name, data in files.items()}
    record = dict(pipeline='40_toy', name='a', key=KEY, identity=PARTS, state='done', started='2026-01-01',
                  outputs={name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    inside[f'{RUN}/run.json'] = json.dumps(record | dict(seal=text_hash(canonical(record)))).encode()
    return dict(format=1, runs=[RUN], sweep=sweep, absent=[], files=listed(inside.items())), inside


def import_of(files, ws, path, **more):
    manifest, inside = sealed_run(files)
    inside |= more
    return pack(path, [entry(*f) for f in sorted(inside.items())], manifest | dict(files=listed(inside.items())) )


@pytest.mark.parametrize('name', ['evil.py', 'x.pth', 'x.pt', 'x.pkl', 'x.so', 'x.sh', 'x.svg', 'x.js', 'x.htm', 'x.xhtml', 'x.desktop', 'x.exe',
                                  'x.yaml.py', 'x.PY', 'x.', 'x.ipynb.pyc', 'x.npy', 'x.zip', 'x.ini', 'x.cfg', 'x.toml', 'x.mht'])
def test_kinds_of_files_that_no_run_leaves(tmp_path, elsewhere, name):
    refuse(import_of({name: b'x'}, elsewhere, tmp_path/'a.tar.gz'), elsewhere, 'leaves no such file')
    refuse(import_of({f'sub/{name}': b'x'}, elsewhere, tmp_path/'b.tar.gz'), elsewhere, 'leaves no such file')
    manifest, inside = sealed_run({'x.txt': b'x'}, 'k')
    inside[f'sweeps/k/{name}'] = b'x'
    refuse(pack(tmp_path/'c.tar.gz', [entry(*f) for f in sorted(inside.items())], manifest | dict(files=listed(inside.items()))),
           elsewhere, 'leaves no such file')


@pytest.mark.parametrize('text', ['[1]', '3', '"x"', '{}', '{"runs": 3}', '{"runs": [3]}', '{"runs": [{"key": 3}]}', '{', 'null', '['*100_000])
def test_sweeps_that_are_none(tmp_path, elsewhere, text):
    "A sweep that could not be listed afterwards is not taken in"
    manifest, inside = sealed_run({'x.txt': b'x'}, 'k')
    inside['sweeps/k/sweep.json'] = text.encode()
    refuse(pack(tmp_path/'a.tar.gz', [entry(*f) for f in sorted(inside.items())], manifest | dict(files=listed(inside.items()))), elsewhere, 'sweep.json')
    assert not list_runs(elsewhere) and not (elsewhere.reports/'sweeps').exists() # So that there is nothing to list


def test_a_folder_in_place_of_a_record(tmp_path, elsewhere):
    manifest, inside = sealed_run({'x.txt': b'x'})
    inside[f'{RUN}/run.json/x.txt'] = inside.pop(f'{RUN}/run.json')
    refuse(pack(tmp_path/'a.tar.gz', [entry(*f) for f in sorted(inside.items())], manifest | dict(files=listed(inside.items()))), elsewhere, 'is no file')


PAGE = document('Nuts', Markup('<h1>Nuts</h1><p>Fine.</p>'))
HOSTILE = ['<script>x</script>', '<SCRIPT SRC=//x>', '<img src=x onerror=alert(1)>', '<svg/onload=alert(1)>', '<iframe src=//x>', '<object data=x>',
           '<embed src=x>', '<form action=//x><button>', '<base href=//x>', '<meta http-equiv=refresh content=0;url=//x>', '<link rel=stylesheet href=//x>',
           '<a href=javascript:alert(1)>', '<a href="java\nscript:x">', '<a href=//x>', '<a href=https://x>', '<a href=data:text/html,x>', '<p style=color:red>',
           '<video src=x>', '<math><mtext></mtext></math>', '<template><script>x</script></template>', '<noscript><p title="</noscript><img src=x>">',
           '<textarea><img src=x>', '<xmp>', '<plaintext>', '<!-- x -->', '<![CDATA[x]]>', '<?xml version="1.0"?>', '<input autofocus onfocus=x>',
           '<details open ontoggle=x>', '<use href="data:image/svg+xml,x">', '<image href=//x>', '<animate attributeName=href>', '<set>', '<foreignObject>',
           '<rect fill="url(//x)">', '<style>@import "//x"</style>', '<a href="..%2f..%2fx" ping=//x>', '<img srcset=//x>', '<body background=//x>', '<a href=../../x>']


@pytest.mark.parametrize('hostile', HOSTILE)
def test_pages_that_are_not_ours(tmp_path, elsewhere, hostile):
    "A page with something foreign anywhere below our head, before our head, and one without our policy"
    assert len(import_archive(import_of({'report.html': PAGE.encode()}, elsewhere, tmp_path/'good.tar.gz'), elsewhere)) == 2
    for number, page in enumerate([PAGE.replace('<h1>', hostile + '<h1>'), PAGE.replace('</body>', hostile + '</body>'), PAGE.replace('<title>', hostile + '<title>'),
                                   hostile + PAGE, PAGE.replace('<!doctype html>', '<!doctype html>' + hostile), f'<!doctype html>{hostile}']):
        for name in ('report.html', 'sub/x.HTML'):
            refuse(import_of({name: page.encode()}, elsewhere, tmp_path/f'{number}.tar.gz'), elsewhere, 'report of inspect_lib')


@pytest.mark.parametrize('text', ['<html xmlns="http://www.w3.org/1999/xhtml"><script>x</script></html>', '<?xml version="1.0"?><?xml-stylesheet href="x"?><net/>',
                                  '<net xmlns:x="http://www.w3.org/1999/xhtml"><x:script>x</x:script></net>', '<!DOCTYPE x [<!ENTITY a "b">]><net>', '<svg/>'])
def test_xml_that_a_browser_would_take_for_a_page(tmp_path, elsewhere, text):
    refuse(import_of({'x.xml': text.encode()}, elsewhere, tmp_path/'a.tar.gz'), elsewhere, 'neither an OpenVINO model nor a VOC')
    assert 'was taken in' in import_archive(import_of({'x.xml': b'<?xml version="1.0"?>\n<net name="x">\n</net>'}, elsewhere, tmp_path/'b.tar.gz'), elsewhere)[0]


@pytest.mark.parametrize('name', ['page', 'x.jsonl', 'x.parquet', 'x.json', 'x.bin', 'x.onnx', 'x.h5', 'x.ipynb', 'x.yaml', 'x.png'])
def test_pages_under_another_name(tmp_path, elsewhere, name):
    for text in (b'<html><script>x', b'\xef\xbb\xbf \n<!doctype html>', b'\t<SCRIPT>', b'<?xml version="1.0"?><svg/>'):
        refuse(import_of({name: text}, elsewhere, tmp_path/'a.tar.gz'), elsewhere, 'begins like one')
    assert 'was taken in' in import_archive(import_of({name: b'1 < 2', 'log.txt': b'<frozen os>: x'}, elsewhere, tmp_path/'b.tar.gz'), elsewhere)[0]


@pytest.mark.parametrize('names', [('Report.txt', 'report.txt'), ('\u00e9.txt', 'e\u0301.txt'), ('sub/x.txt', 'Sub/x.txt'), ('stra\u00dfe.txt', 'STRASSE.txt'), ('\uff41.txt', 'a.txt')])
def test_names_that_a_reader_takes_for_one(tmp_path, elsewhere, names):
    refuse(import_of(dict.fromkeys(names, b'x'), elsewhere, tmp_path/'a.tar.gz'), elsewhere, 'capitals or in the spelling')


def test_a_refused_run_is_named_by_its_path_in_the_archive(tmp_path, elsewhere):
    manifest, inside = sealed_run({'x.txt': b'x'})
    record = {k: v for k, v in json.loads(inside[f'{RUN}/run.json']).items() if k != 'seal'} | dict(name='b')
    inside[f'{RUN}/run.json'] = json.dumps(record | dict(seal=text_hash(canonical(record)))).encode()
    path = pack(tmp_path/'a.tar.gz', [entry(*f) for f in sorted(inside.items())], manifest | dict(files=listed(inside.items())))
    with pytest.raises(UserError, match="a run whose name is 'b'") as caught: import_archive(path, elsewhere)
    assert str(elsewhere.root) not in str(caught.value)


@pytest.mark.parametrize('hidden', ['<scr\0ipt>', '<a \0>', '<p title="', "<p title='x", '<p\x0b>', '<a href="%2e%2e/x">', '<a href=".%2E/x">'])
def test_what_one_reader_skips_and_another_reads(tmp_path, elsewhere, hidden):
    "What Python's reader takes for the rest of a text must not hide what a browser reads in it"
    for page in (PAGE.replace('<h1>', hidden + '<a href=//x>y</a><h1>'), PAGE.replace('</body>', hidden + '</body>'), PAGE + hidden):
        refuse(import_of({'report.html': page.encode()}, elsewhere, tmp_path/'a.tar.gz'), elsewhere, 'report of inspect_lib')


def test_signatures(good, workspace, elsewhere, here):
    assert here('keygen', 'mine').returncode == here('keygen', 'other').returncode == 0 and here('keygen', 'mine').returncode == 1
    assert (workspace/'mine').stat().st_mode & 0o777 == 0o600
    assert here('export', 'signed.tar.gz', '--run', KEY, '--sign', 'mine').returncode == 0
    there = dict(INSPECT_LIB_ROOT=str(elsewhere.root))
    for name, args in (('good', ['mine.pub']), ('signed', ['other.pub'])):
        done = here('import', f'{name}.tar.gz', '--require-signature', *args, **there)
        assert done.returncode == 1 and 'is required' in done.stderr and not list(elsewhere.reports.rglob('*')), done.stderr
    done = here('import', 'signed.tar.gz', '--require-signature', 'other.pub', '--require-signature', 'mine.pub', **there)
    assert done.returncode == 0 and 'Signed by SHA256:' in done.stdout and 'signed by SHA256:' in here('list', **there).stdout
    raw = gzip.decompress((workspace/'signed.tar.gz').read_bytes())
    at = raw.index(b'manifest.sig') + 512
    for place in (at + 3, at + 40, raw.index(b'"absent"')): # The key, the signature, the manifest
        (workspace/'bad.tar.gz').write_bytes(gzip.compress(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1:]))
        done = here('import', 'bad.tar.gz', **there)
        assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr


def test_a_full_disk_leaves_nothing(workspace, elsewhere):
    small = elsewhere.reports
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', small]).returncode:
        pytest.skip('a small disk can be mounted by root only')
    try:
        ws = make_run(workspace)
        big = runs_folder(ws, '40_toy', 'b')/'.work-0'; big.mkdir(parents=True)
        parts = dict(params=dict(k=1)); (big/'noise').write_bytes(os.urandom(200_000))
        record = dict(pipeline='40_toy', name='b', key=run_key(parts), identity=parts, state='done')
        seal(big, record, big.parent/run_key(parts))
        path = export_archive(ws, list_runs(ws), workspace/'big.tar.gz')
        with pytest.raises((UserError, OSError)): import_archive(path, elsewhere)
        assert not list(small.rglob('*'))
    finally: subprocess.run(['umount', '-l', small])


BODY = """from inspect_lib.run.work import begin, finish
run = begin('40_toy', globals())
text = (run.inputs['source']/'made').read_text() if source else 'none'
(run.folder/'made').write_text(f'{text} {n}')
luck = 0.5 if not (run.folder.anchor and __import__('os').environ.get('LUCK')) else 0.25
finish(run, dict(n=n, luck=luck, text=text), 'Made.', '<!doctype html><title>toy</title>')"""


def test_reproduce_finds_the_inputs_of_then(workspace, here, monkeypatch):
    add_pipeline(workspace, '40_toy', "n: int = 1  # Any\nsource: 'input' = ''  # Any", BODY)
    (workspace/'params'/'40_toy').mkdir()
    for name, text in (('first', 'n: 1\n'), ('second', 'n: 5\nsource: reports/40_toy/first\n')):
        (workspace/'params'/'40_toy'/f'{name}.yaml').write_text(text)
    assert here('run', '40_toy', 'first').returncode == here('run', '40_toy', 'second').returncode == 0
    ws = open_workspace(workspace)
    second = next(r for r in list_runs(ws) if r['name'] == 'second')
    assert here('run', '40_toy', 'first', '-p', 'n=2').returncode == 0, 'a newer run of the input'
    before = {p: p.stat().st_mtime_ns for p in sorted(ws.reports.rglob('*'))}
    told = reproduce(second['key'][:8], ws)
    assert told == dict(key=second['key'], equal=True, differences={}, files=[], code_changed=[])
    monkeypatch.setenv('LUCK', '1')
    told = reproduce(second['key'], ws, run_in_process)
    assert not told['equal'] and told['differences'] == {'luck': dict(then=.5, now=.25, relative=.5)}
    monkeypatch.delenv('LUCK')
    nb = workspace/'nbs'/'pipelines'/'40_toy.ipynb'
    nb.write_text(nb.read_text().replace('{text} {n}', '{text}, {n}'))
    told = reproduce(second['key'], ws, run_in_process)
    assert told['equal'] and told['files'] == ['made'] and told['code_changed'] == ["the notebook's code changed"]
    assert {p: p.stat().st_mtime_ns for p in sorted(ws.reports.rglob('*'))} == before
    assert not list(ws.cache.glob('reproduce-*'))


def test_gc_leaves_what_is_in_work_and_removes_in_one_step(workspace):
    ws = make_run(workspace)
    failed = runs_folder(ws, '40_toy', 'a')/('failed-' + 'f'*16); failed.mkdir(); (failed/'log.txt').write_text('x')
    write_json(ws.reports/'sweeps'/'k'/'sweep.json', dict(runs=[dict(pipeline='40_toy', name='a', key=KEY)]))
    make_run(workspace, dict(params=dict(k=6)), started='2026-03-03')
    code = "import sys\nfrom pathlib import Path\nfrom inspect_lib.run.lock import locked\n" \
           "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [BIN/'python', '-c', code, failed.with_name('.work-' + 'f'*16)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    assert [p['path'] for p in gc(ws)] == [f'reports/40_toy/a/{failed.name}']
    assert gc(ws, dry_run=False) == [] and failed.exists()
    holder.communicate()
    assert len(gc(ws, dry_run=False)) == 1 and not failed.exists()
    assert len(list_runs(ws)) == 2 and not list(ws.reports.rglob('.[!o]*'))
