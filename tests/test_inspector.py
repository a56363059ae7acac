"""The inspector away from home: exported, on pictures of any kind, and what is refused."""
import shutil

import numpy as np
import onnx
import pytest
import torch

from inspect_lib.core.file import file_hash, read_json, write_json
from inspect_lib.core.image import write_image
from inspect_lib.core.seed import generator
from inspect_lib.data.folder import read_folder
from inspect_lib.label.suspects import planted_recall
from inspect_lib.data.label import IO, NIO
from inspect_lib.net.zoo import load_encoder
from inspect_lib.model.contract import NAME, prepare
from inspect_lib.model.inspector import Inspector
from inspect_lib.deploy.exported import drawn_pictures, export_model, open_scorer, parity, to_openvino
from inspect_lib.model.siamese import new_siamese
from inspect_lib.net.device import to_tensor
from inspect_lib.net.weights import card_digest
from inspect_lib.cli import main


def part(i: int, defective: bool, size=(48, 64)) -> np.ndarray:
    "A smooth surface, by choice with bright spots"
    rng = generator(0, 'part', i); y, x = np.mgrid[:size[0], :size[1]]
    grey = rng.normal(110, 4, size)
    for _ in range(4*defective): grey[np.hypot(y - rng.integers(size[0]), x - rng.integers(size[1])) < 5] = 240
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope='module')
def inspector(tmp_path_factory):
    "A folder with an inspector that knows such surfaces"
    folder, defective = tmp_path_factory.mktemp('inspector'), [i % 2 == 0 for i in range(12)]
    twins, pictures = new_siamese(dim=16).eval(), [part(i, bad) for i, bad in enumerate(defective)]
    with torch.no_grad():
        z = twins(to_tensor(prepare(pictures, 64), 'cpu'))
        model = Inspector.around(twins, z, ~torch.tensor(defective)).eval()
        model.body[2].width.fill_(float(twins.distance(z, z).median())/4)
    model.card = dict(threshold=.5, band=[.45, .55])
    model.save(folder)
    return folder


def test_scores_mean_something(inspector):
    scores = open_scorer(inspector)([part(100 + i, i % 2 == 0) for i in range(12)])
    assert scores[1::2].min() > .5 > scores[::2].max()


def test_any_form_says_the_same_of_any_picture(inspector, exported):
    images = [part(1, True), part(2, False, (99, 31)), part(3, True)[..., 0], part(4, False, (1, 1)),
              *drawn_pictures(20, 64)]
    for path in exported:
        found = parity(open_scorer(inspector), open_scorer(path), images, batch_size=7)
        assert found['pictures'] == 24 and found['flips'] == 0 and found['largest_difference'] <= 1e-4, (path, found)


@pytest.mark.slow
def test_a_thousand_pictures_and_no_verdict_flips(inspector, exported):
    def images():
        yield from (part(i, i % 2 == 0, (40 + i % 50, 60)) for i in range(500))
        yield from drawn_pictures(600, 96)
    for path in exported:
        found = parity(open_scorer(inspector), open_scorer(path), images())
        print(path.name, found)
        assert found['pictures'] == 1100 and found['flips'] == 0 and found['largest_difference'] <= 1e-4, (path, found)


def test_a_snapshot_of_whatever_lies_there(inspector, tmp_path, capsys):
    folder, out = tmp_path/'in', tmp_path/'out'/'verdicts.csv'
    write_image(folder/'A_1.png', part(101, False)); write_image(folder/'A_2.png', part(102, True))
    write_image(folder/'B_1.jpg', part(103, False, (70, 70))); write_image(folder/'B_2.bmp', part(105, False)[..., 0])
    (folder/'C_1.png').write_bytes((folder/'A_1.png').read_bytes()[:300])
    command = ['inspect', str(inspector), str(folder), '--part', '{part}_*', '--out', str(out),
               '--draw', str(tmp_path/'drawn')]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert '3 parts: 1 IO, 1 NIO, 1 I don' in said and said.count('C_1.png') == 1 and 'broken or cut off' in said
    rows = [line.split(',')[:3] for line in out.read_text().splitlines()]
    assert [row[2] for row in sorted(rows[1:])] == [IO, NIO, IO, IO, "I don't know"]
    assert rows[0] == ['image', 'score', 'verdict']
    assert len(list((tmp_path/'drawn').glob('[!.]*'))) == 5
    assert main(command) == 0 and '5 were judged before' in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == 6


def test_the_exported_file_brings_its_threshold_and_the_user_another(inspector, exported, tmp_path, capsys):
    write_image(tmp_path/'a.png', part(101, False))
    assert main(['inspect', str(exported[0]), str(tmp_path/'a.png')]) == 0
    assert capsys.readouterr().out.startswith(IO)
    assert main(['inspect', str(exported[0]), str(tmp_path/'a.png'), '--threshold', '1']) == 0
    assert capsys.readouterr().out.startswith(NIO)
    assert main(['inspect', str(exported[0]), str(tmp_path/'a.png'), '--threshold', '.5', '--band', '0', '1']) == 0
    assert capsys.readouterr().out.startswith("I don't know")


def test_a_covered_lens_and_another_product_are_withheld_on_the_line(inspector, tmp_path, capsys):
    model = Inspector.load(inspector)
    model.learn_novelty([part(i, i % 2 == 0) for i in range(40)])
    model.card |= dict(threshold=.3, band=None) # A half would be accepted
    model.save(tmp_path/'model')
    for name, image in dict(cap=np.zeros((48, 64, 3), np.uint8), negative=255 - part(1, False), part=part(101, False)).items(): write_image(tmp_path/'in'/f'{name}.png', image)
    out = tmp_path/'out.csv'
    for form in (tmp_path/'model', export_model(model, tmp_path/'model.onnx')):
        out.unlink(missing_ok=True)
        assert main(['inspect', str(form), str(tmp_path/'in'), '--out', str(out)]) == 0
        rows = {line.split(',')[0]: line.split(',')[1:3] for line in out.read_text().splitlines()}
        assert rows['cap.png'] == rows['negative.png'] == ['0.5', "I don't know"] and rows['part.png'][1] == IO
        assert 'cap.png: unlike everything that the model knows' in capsys.readouterr().err


def spoiled(inspector, folder, spoil):
    shutil.copytree(inspector, folder)
    spoil(folder/NAME, folder/'model.json')
    return folder


def cut_off(weights, card): weights.write_bytes(weights.read_bytes()[:-100])
def pickled(weights, card): weights.write_bytes(b'\x80\x04\x95cos\nsystem\n.')
def no_card(weights, card): card.unlink()
def no_weights(weights, card): weights.unlink()
def change(card, **entries): write_json(card, (whole := read_json(card) | entries) | dict(digest=card_digest(whole)))
def change_config(card, **entries): change(card, config=read_json(card)['config'] | entries)
def other_size(weights, card): change_config(card, embedding=8)
def other_net(weights, card): change_config(card, backbone='resnet18', backbone_config={})
def other_kind(weights, card): write_json(card, dict(classes=['a', 'b'], sha256=file_hash(weights)))
def edited(weights, card): write_json(card, read_json(card) | dict(threshold=.01))
def no_such_architecture(weights, card): change(card, architecture='siamois')
def no_number(weights, card): change_config(card, embedding='many')


def pickled_with_card(weights, card):
    pickled(weights, card)
    change(card, sha256=file_hash(weights))


@pytest.mark.parametrize('spoil, why', [
    (cut_off, 'cut off, changed or foreign'), (pickled, 'cut off, changed or foreign'), (no_card, 'does not exist'),
    (pickled_with_card, 'no safetensors file'), (no_weights, f'holds no {NAME}'), (edited, 'its digest differs'),
    (other_size, 'another architecture'), (other_net, 'another architecture'), (other_kind, 'no card of a model'),
    (no_such_architecture, "Did you mean 'siamese'"), (no_number, "embedding must be of type int, got 'many'")])
def test_what_is_no_inspector_is_refused_in_a_sentence(inspector, tmp_path, capsys, spoil, why):
    write_image(tmp_path/'a.png', part(1, False))
    assert main(['inspect', '-q', str(spoiled(inspector, tmp_path/'model', spoil)), str(tmp_path/'a.png')]) == 1
    said = capsys.readouterr().err
    assert why in said and said.count('\n') == 1 and said.startswith('inspect-lib: ')


def foreign_network(path):
    "An ONNX file of somebody else"
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node('Identity', ['images'], ['score'])
    graph = onnx.helper.make_graph([node], 'other', [value('images')], [value('score')])
    onnx.save(onnx.helper.make_model(graph), path)


@pytest.mark.parametrize('given, why', [
    (['{model}', '{tmp}/empty'], 'holds no picture'),
    (['{model}', '{tmp}/away'], 'does not exist; a picture, a folder'),
    (['{model}', '77'], 'no camera 77'), (['{model}', '{tmp}/text.txt'], 'neither a picture nor a video'),
    (['{model}', '{tmp}/empty', '--out', '{tmp}/v.txt'], '.jsonl or a .csv'),
    (['{model}', '{tmp}/empty', '--live', '--draw', '{tmp}/empty/drawn'], 'would be inspected again'),
    (['{model}', '{tmp}/empty', '--threshold', '2'], 'threshold must lie in'),
    (['{model}', '{tmp}/empty', '--threshold', '.5', '--band', '.6', '.7'], 'must lie around the threshold'),
    (['{tmp}/text.txt', '{tmp}/empty'], 'is no model'), (['{tmp}/foreign.onnx', '{tmp}/empty'], 'no card of ours'),
    (['{tmp}/broken.onnx', '{tmp}/empty'], 'no network that can be read')])
def test_mistakes_at_the_command_line(inspector, tmp_path, capsys, given, why):
    (tmp_path/'empty').mkdir(); (tmp_path/'text.txt').write_text('no video')
    (tmp_path/'broken.onnx').write_text('nothing')
    foreign_network(tmp_path/'foreign.onnx')
    assert main(['inspect', *(text.format(model=inspector, tmp=tmp_path) for text in given)]) == 1
    said = capsys.readouterr().err
    assert why in said and 'Traceback' not in said


@pytest.fixture(scope='module')
def exported(inspector, tmp_path_factory):
    path = export_model(Inspector.load(inspector), tmp_path_factory.mktemp('exported')/'model.onnx')
    return [path, to_openvino(path)]


def test_a_region_that_does_not_fit_is_said_once_for_each_picture(inspector, tmp_path, capsys):
    def boxed(weights, card): change(card, roi=[0, 0, 64, 48])
    write_image(tmp_path/'in'/'a.png', part(101, False)); write_image(tmp_path/'in'/'b.png', part(101, False, (30, 30)))
    assert main(['inspect', str(spoiled(inspector, tmp_path/'model', boxed)), str(tmp_path/'in')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(IO) and lines[1].startswith("I don't")
    assert 'reaches beyond the picture of 30 x 30' in lines[1]


def test_a_card_without_threshold_asks_for_one(inspector, tmp_path, capsys):
    def blank(weights, card):
        kept = {k: v for k, v in read_json(card).items() if k not in ('threshold', 'band')}
        write_json(card, kept | dict(digest=card_digest(kept)))

    write_image(tmp_path/'a.png', part(101, False))
    command = ['inspect', str(spoiled(inspector, tmp_path/'model', blank)), str(tmp_path/'a.png')]
    assert main(command) == 1 and 'not calibrated' in capsys.readouterr().err
    assert main([*command, '--threshold', '.5']) == 0


@pytest.mark.slow
@pytest.mark.parametrize('name, good, minimum', [('casting', 'IO', .5), ('magnetic_tile', 'Free', .2)])
def test_planted_label_errors_in_real_pictures(real_data, name, good, minimum):
    table = read_folder(real_data/name)
    table['gt_label'] = np.where(table.gt_label == good, IO, NIO)
    features = load_encoder('inspect-tiny').encode_files(table.image_path)
    found = planted_recall(table, features, generator(0, 'planted'))
    print(name, found)
    assert found['value'] > minimum # One in twenty is planted, so chance finds one in twenty
