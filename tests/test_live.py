"""Live inspection: folders that fill, half-written and broken files, stopping and going on."""
import io
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from inspect_lib.core.error import UserError
from inspect_lib.core.image import declare_white_level, write_image
from inspect_lib.core.seed import generator
from inspect_lib.model.decision import Decision
from inspect_lib.data.label import IO, NIO, UNKNOWN
from inspect_lib.model.inspector import Inspector
from inspect_lib.deploy.exported import Scorer
from inspect_lib.model.registry import ARCHITECTURES
from inspect_lib.model.siamese import new_siamese
from inspect_lib.cli import main
from inspect_lib.run.store import seal
from inspect_lib.serve.inspection import InspectConfig, run
from inspect_lib.serve.session import COLUMNS, InspectionSession, inspect_images, read_results
from inspect_lib.serve.source import watch_folder

BRIGHT = Scorer(dict(side=8, threshold=.5), lambda pictures: np.stack(pictures).mean((1, 2, 3))/255, 'bright.onnx 0')


def encoded(form: str, value: int = 200) -> bytes:
    "A picture file with something in it"
    noise = generator(0, 'live', value).integers(-30, 30, (40, 50, 3)) + value
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def watch(folder, *steps, patience=3.):
    "The images that a watched folder yields while the steps happen, one between two polls, and three polls after the last"
    done, todo = [], [*steps, *[lambda: None]*3]
    def sleep(seconds): todo[len(done)](); done.append(seconds)
    stop = lambda: len(done) == len(todo)
    return list(watch_folder(folder, stop, patience=patience, sleep=sleep, clock=lambda: float(len(done))))


@pytest.mark.parametrize('form, suffix', [
    ('PNG', 'png'), ('JPEG', 'jpg'), ('BMP', 'bmp'), ('TIFF', 'tif'), ('WEBP', 'webp'), ('PPM', 'ppm')])
def test_a_half_written_file_is_waited_for(tmp_path, form, suffix):
    data, path = encoded(form), tmp_path/f'a.{suffix}'
    write = lambda share: lambda: path.write_bytes(data[:round(len(data)*share)])
    nothing = lambda: None
    images = watch(tmp_path, write(0), nothing, write(.3), nothing, write(.7), nothing, write(1))
    assert [(s.name, s.error) for s in images] == [(path.name, '')] and images[0].image.shape == (40, 50, 3)
    path.unlink()
    never = watch(tmp_path, write(.6), *[nothing]*8)
    assert [s.name for s in never] == [path.name] and 'decoded' in never[0].error # Once


def test_what_is_no_picture_yet_or_no_more_does_not_stop_the_loop(tmp_path):
    whole, folder = encoded('PNG'), tmp_path/'line'; folder.mkdir()
    def gone(): (folder/'gone.png').unlink()
    def away(): shutil.rmtree(folder)
    def back(): folder.mkdir(); (folder/'back.png').write_bytes(whole)
    images = watch(folder,
                   lambda: [(folder/n).write_bytes(whole) for n in ('gone.png', '.camera.png.part', 'list.txt')],
                   gone, lambda: (folder/'dir.png').mkdir(), lambda: (folder/'text.png').write_text('text'),
                   *[lambda: None]*6, away, back)
    assert [(s.name, bool(s.error)) for s in images] == [('text.png', True), ('back.png', False)]


def test_a_name_that_is_used_again_is_a_new_picture(tmp_path):
    path, nothing = tmp_path/'newest.jpg', lambda: None
    def put(value):
        def write(): path.write_bytes(encoded('JPEG', value))
        return write
    images = watch(tmp_path, put(50), nothing, nothing, put(220), nothing, nothing)
    assert [round(s.image.mean(), -1) for s in images] == [50, 220]
    session = InspectionSession(BRIGHT, Decision(.5))
    results = []
    result = inspect_images(iter(images), session, lambda image, row, rate: results.append((row['verdict'], rate)))
    assert [v for v, _ in results] == [NIO, IO] and result.n_images == 2 and results[1][1] > 0


def test_an_error_of_the_network_is_not_caught(tmp_path):
    "Only what is wrong with a picture becomes a row; what is wrong with the program is an error"
    (tmp_path/'a.png').write_bytes(encoded('PNG'))
    def fails(pictures): raise RuntimeError('out of memory')
    with pytest.raises(RuntimeError):
        inspect_images(iter(watch(tmp_path, lambda: None)), InspectionSession(Scorer(BRIGHT.card, fails), Decision(.5)))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "An inspector that was never trained: good enough to run"
    folder, chance = tmp_path_factory.mktemp('model'), torch.Generator().manual_seed(0)
    pictures = torch.rand(4, 3, 32, 32, generator=chance)
    twins, labels = new_siamese(dim=4).eval(), [IO, NIO, IO, NIO]
    with torch.no_grad(): model = Inspector.around(twins, twins(pictures), torch.tensor([label == IO for label in labels]))
    model.config, model.card = replace(model.config, side=32), dict(threshold=.5)
    model.save(folder)
    return folder


def test_the_newest_run_of_a_name_inspects(model, workspace, monkeypatch, capsys):
    write_image(workspace/'in'/'a.png', np.full((40, 40, 3), 90, np.uint8))
    for key, day in (('0'*16, 1), ('1'*16, 2)):
        work = workspace/'reports'/'32_siamese'/'door'/f'.work-{key}'
        shutil.copytree(model, work)
        seal(work, dict(pipeline='32_siamese', name='door', key=key, state='done', started=f'2026-01-0{day}T00:00:00+00:00', metrics={}, params={}),
             work.with_name(key))
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace)); monkeypatch.chdir(workspace) # Where the name is a folder as well
    assert main(['inspect', 'reports/32_siamese/door', 'in']) == 0
    assert '1 pictures' in capsys.readouterr().err
    assert main(['inspect', 'reports/32_siamese/none', 'in']) == 1
    assert 'has no finished run' in capsys.readouterr().err


def until(condition, process):
    "Wait for a process to do something; slow machines may take their time"
    for _ in range(2400):
        if condition(): return
        assert process.poll() is None, process.communicate()
        time.sleep(.05)
    raise AssertionError('nothing happened within two minutes')


def test_live_until_ctrl_c_and_on_again(cli, model, tmp_path, capsys):
    folder, out, whole = tmp_path/'line', tmp_path/'verdicts.jsonl', encoded('PNG')
    folder.mkdir(); (folder/'1.png').write_bytes(whole); (folder/'2.png').write_bytes(whole[:len(whole)//2])
    rows = lambda: [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    process = cli('inspect', model, folder, '--live', '--out', out, '--patience', '600', wait=False)
    until(lambda: len(rows()) == 1, process)
    (folder/'2.png').write_bytes(whole)
    until(lambda: len(rows()) == 2, process)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 0 and '2 pictures' in err and 'stopped by SIGINT' in err and 'Traceback' not in err
    assert [(r['image'], r['error']) for r in rows()] == [('1.png', ''), ('2.png', '')]
    assert rows()[0]['score'] == rows()[1]['score']
    with out.open('a') as file: file.write('{"image": "3.p') # As a kill leaves it
    write_image(folder/'3.png', np.zeros((9, 9, 3), np.uint8))
    assert main(['inspect', str(model), str(folder), '--live', '--out', str(out), '--count', '1']) == 0
    assert [r['image'] for r in rows()] == ['1.png', '2.png', '3.png']
    assert '2 were judged before' in capsys.readouterr().err


HOSTILE = [os.fsdecode(b'caf\xe9.png'), 'a\nIO            1.000    24.1  b.png', 'tab\there.png', '<script>alert(1)<.png', '=cmd|calc!A0.png', '+1.png', '-rf.png', '@x.png',
           '\u202egnp.exe.png', 'x'*251 + '.png', 'ü'*125 + '.png', '\x1b[2Jred.png', '{0}{x}.png', r'\u0041.png', "it's.png", "'=1.png", ' a,b;"c.png', '\r.png', '\u2028.png']


def hostile(folder):
    "Pictures with names that a camera, a zip of another country or an attacker gives"
    folder.mkdir()
    for name in HOSTILE: (folder/name).write_bytes(encoded('PNG'))
    (folder/'.hidden.png').write_bytes(encoded('PNG'))
    for name in (os.fsdecode(b'\xffbroken.png'), 'broken\nGOOD.png'): (folder/name).write_bytes(b'no picture')
    return sorted([*HOSTILE, os.fsdecode(b'\xffbroken.png'), 'broken\nGOOD.png'])


@pytest.mark.parametrize('live', [False, True])
@pytest.mark.parametrize('suffix', ['csv', 'jsonl'])
def test_names_of_any_kind_are_inspected_logged_and_known_again(model, tmp_path, capsys, suffix, live):
    names, out = hostile(tmp_path/'line'), tmp_path/f'verdicts.{suffix}'
    args = ['inspect', str(model), str(tmp_path/'line'), '--out', str(out), '--draw', str(tmp_path/'drawn'), '--patience', '0', *(['--live'] if live else [])]
    assert main([*args, '--count', str(len(names))]) == 0
    assert sorted(row['image'] for row in read_results(out)) == names
    assert len(out.read_bytes().decode().splitlines()) == len(names) + (suffix == 'csv') # One line each, in UTF-8
    assert not any(line[:1] in '=+-@' for line in out.read_text().splitlines()) and '\x1b' not in out.read_text() and '\u202e' not in out.read_text()
    assert len(list((tmp_path/'drawn').glob('*.jpg'))) == len(names)
    if not live:
        assert main(args) == 0 and f'{len(names)} were judged before' in capsys.readouterr().err # All are known again


def test_names_of_any_kind_on_the_terminal(model, tmp_path, cli):
    names = hostile(tmp_path/'line')
    for more in ([], ['--out', '-']):
        done = cli('inspect', model, tmp_path/'line', *more, PYTHONIOENCODING='ascii' if more else 'utf-8')
        assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == len(names) and all(c.isprintable() for line in lines for c in line) # No name forges a line or moves the cursor
        if more: assert sorted(json.loads(line)['image'] for line in lines) == names


@pytest.mark.parametrize('name, content', [
    ('notes.csv', b'one line without newline'), ('notes.csv', b'a,b\n1,2\nlast'), ('notes.jsonl', b'{"a": 1}\n{"a": 2}'), ('x.csv', b'\xff\xfe\0'),
    ('x.jsonl', b'{"image": "a.png"}\n{"image'), ('half.csv', b'image,score,verdict,other\n'), ('v.csv', ','.join(COLUMNS).encode() + b'\na,b\nrest')])
def test_a_file_that_is_not_ours_is_left_as_it_is(model, tmp_path, capsys, name, content):
    (tmp_path/name).write_bytes(content); (tmp_path/'photos').mkdir(); (tmp_path/'photos'/'a.png.jpg').write_bytes(b'mine')
    write_image(tmp_path/'in'/'a.png', np.zeros((9, 9, 3), np.uint8))
    assert main(['inspect', str(model), str(tmp_path/'in'), '--out', str(tmp_path/name)]) == 1
    assert 'other things than verdicts' in capsys.readouterr().err and (tmp_path/name).read_bytes() == content
    assert main(['inspect', str(model), str(tmp_path/'in'), '--draw', str(tmp_path/'photos')]) == 1
    assert 'name a new folder' in capsys.readouterr().err and (tmp_path/'photos'/'a.png.jpg').read_bytes() == b'mine'


def test_a_log_that_a_kill_tore_in_its_first_line_goes_on(model, tmp_path):
    write_image(tmp_path/'in'/'a.png', np.zeros((9, 9, 3), np.uint8))
    for name, torn in (('a.csv', 'image,sco'), ('b.csv', ''), ('c.jsonl', '{"ima'), ('d.jsonl', '{"image": "a.p')):
        (tmp_path/name).write_text(torn)
        assert main(['inspect', str(model), str(tmp_path/'in'), '--out', str(tmp_path/name)]) == 0
        assert [row['image'] for row in read_results(tmp_path/name)] == ['a.png']


def test_a_video_frame_by_frame(model, tmp_path, capsys):
    writer = cv2.VideoWriter(str(tmp_path/'video.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (48, 32))
    for value in range(5): writer.write(np.full((32, 48, 3), 40*value, np.uint8))
    writer.release()
    assert main(['inspect', str(model), str(tmp_path/'video.avi'), '--out', '-', '--draw', str(tmp_path/'drawn'),
                 '--count', '4']) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [r['image'] for r in rows] == [f'video.avi#{i:06}' for i in range(4)] and 'pictures per second' in captured.err
    assert all(r['verdict'] in (IO, NIO, UNKNOWN) and 0 <= r['score'] <= 1 for r in rows)
    assert len(list((tmp_path/'drawn').glob('*.jpg'))) == 4


@pytest.mark.parametrize('kind, good', [('patchcore', []), ('similarity', ['--good', 'dark']), ('faster-rcnn', [])])
def test_the_command_inspects_with_any_model(kind, good, workspace, monkeypatch, capsys):
    ARCHITECTURES[kind].example().save(workspace/'model')
    write_image(workspace/'in'/'a.png', np.full((40, 60, 3), 30, np.uint8)); write_image(workspace/'in'/'b.png', np.full((50, 40), 200, np.uint8))
    monkeypatch.chdir(workspace)
    assert main(['inspect', 'model', 'in', *good, '--out', '-']) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row['image'] for row in rows] == ['a.png', 'b.png'] and all(0 <= row['score'] <= 1 and not row['error'] for row in rows)
    assert rows[0]['model'].startswith('model.safetensors ')


def test_a_model_that_names_classes_asks_which_are_good(workspace, monkeypatch, capsys):
    ARCHITECTURES['similarity'].example().save(workspace/'model')
    write_image(workspace/'a.png', np.full((40, 60, 3), 30, np.uint8))
    monkeypatch.chdir(workspace)
    assert main(['inspect', 'model', 'a.png']) == 1 and 'say which of them are good' in capsys.readouterr().err


# ---------------------------------------------------------------- twelve bits, and regions that are none

def rows_of(folder, scorer, **options) -> dict:
    "Image -> row, as `inspect-lib inspect` writes them"
    out = folder.parent/f'{len(list(folder.parent.iterdir()))}.jsonl'
    try: run(InspectConfig(str(folder), out=str(out), **options), scorer)
    finally: declare_white_level(0)
    return {row['image']: row for row in map(json.loads, out.read_text().splitlines())}


def test_pictures_are_read_by_the_range_that_the_model_was_trained_with(tmp_path):
    eight = np.asarray(Image.open(io.BytesIO(encoded('PNG'))))[..., 0]
    (tmp_path/'in').mkdir()
    for name, image in (('8', eight), ('12', np.round(eight/255*4095).astype(np.uint16))): Image.fromarray(image).save(tmp_path/'in'/f'{name}.png')
    rows = rows_of(tmp_path/'in', BRIGHT)
    assert rows['12.png']['verdict'] == UNKNOWN and 'white_level: 4095' in rows['12.png']['error'] and rows['12.png']['score'] is None
    for scorer, options in ((replace(BRIGHT, card=BRIGHT.card | dict(white_level=4095)), {}), (BRIGHT, dict(white_level=4095))):
        rows = rows_of(tmp_path/'in', scorer, **options)
        assert rows['12.png']['error'] == '' and abs(rows['12.png']['score'] - rows['8.png']['score']) < .005
    with pytest.raises(UserError, match='A white level lies in 1..65535'): rows_of(tmp_path/'in', BRIGHT, white_level=70_000)


@pytest.mark.parametrize('roi', ['nan,1,5,5', 'inf,1,5,5', '-inf,1,5,5', '-1,0,5,5', '1e400,0,5,5', '5,0,5,9', '1.5,0,5,9', ',,,', 'a,b,c,d'])
def test_a_region_that_is_none_is_one_sentence(tmp_path, roi):
    (tmp_path/'in').mkdir(); (tmp_path/'in'/'1.png').write_bytes(encoded('PNG'))
    (tmp_path/'roi.csv').write_text(f'image,x0,y0,x1,y1\n1.png,{roi}\n')
    with pytest.raises(UserError, match='roi.csv, line 2: ') as refused: rows_of(tmp_path/'in', BRIGHT, roi=str(tmp_path/'roi.csv'))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('roi', [[float('nan'), 1, 5, 5], [1, 2, 3], [0, 0, float('inf'), 9], [None]*4, 'all', [0, 0, 5.5, 9], [0, 0, 500, 9]])
def test_a_region_on_a_card_that_is_none_withholds(tmp_path, roi):
    (tmp_path/'in').mkdir(); (tmp_path/'in'/'1.png').write_bytes(encoded('PNG'))
    row = rows_of(tmp_path/'in', replace(BRIGHT, card=BRIGHT.card | dict(roi=roi)))['1.png']
    assert row['verdict'] == UNKNOWN and row['score'] is None and ('a ROI is four whole numbers' in row['error'] or 'reaches beyond' in row['error'])
