"""Picture folders as people sort them: recognised as what they are, or refused with what was expected; nothing is lost silently."""
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from inspect_lib.data.mask import mask_paths
from inspect_lib.core.error import UserError
from inspect_lib.core.image import SUFFIXES, to_jpeg, write_image
from inspect_lib.data.folder import read_folder, read_picture, select_rows
from inspect_lib.core.file import is_hidden
from inspect_lib.data.inventory import plain_inventories, read_tables, unused_files
from inspect_lib.data.layout import split_of
from inspect_lib.formats.pool import read_pool
from inspect_lib.formats.pool_inventory import check_objects, read_pools
from inspect_lib.report.inventory import inventory_section
from inspect_lib.serve.source import image_files, source_in_words


def draw(root: Path, *names: str) -> Path:
    "Small pictures, each of its own grey"
    for name in names: write_image(root/name, np.full((8, 8), sum(map(ord, name)) % 256, np.uint8))
    return root


def counts(root: Path) -> dict: return read_folder(root).groupby(['split', 'gt_label']).size().to_dict()


@pytest.mark.parametrize('train, val, test', [
    ('train', 'valid', 'test'), ('Train', 'Val', 'Test'), ('TRAIN', 'VALIDATION', 'TEST'), ('training', 'validation', 'testing'),
    ('train2017', 'val2017', 'test2017'), ('train_set', 'val_set', 'test_set'), ('Training Data', 'Validation Data', 'Test Data')])
def test_splits_are_recognised_however_they_are_spelt(tmp_path, train, val, test):
    draw(tmp_path, *(f'{split}/{label}/{i}.png' for split in (train, val, test) for label in ('IO', 'NIO') for i in range(2)))
    (tmp_path/'README.dataset.txt').touch()
    assert counts(tmp_path) == {(split, label): 2 for split in ('train', 'val', 'test') for label in ('IO', 'NIO')}
    for asked in (val, 'val', 'valid'): assert len(select_rows(read_folder(tmp_path), asked)) == 4


def test_relatives_of_mvtec_are_read_with_their_masks(tmp_path):
    btad = draw(tmp_path/'btad', 'train/ok/0.png', 'test/ok/1.png', 'test/ko/2.png', 'ground_truth/ko/2.png')
    loco = draw(tmp_path/'loco', 'train/good/0.png', 'validation/good/1.png', 'test/good/2.png', 'test/structural/3.png',
                'ground_truth/structural/3/000.png', 'ground_truth/structural/3/001.png')
    visa = draw(tmp_path/'visa', 'Data/Images/Normal/0.png', 'Data/Images/Anomaly/1.png', 'Data/Masks/Anomaly/1.png')
    assert counts(btad) == {('test', 'ko'): 1, ('test', 'ok'): 1, ('train', 'ok'): 1}
    assert counts(loco) == {('test', 'good'): 1, ('test', 'structural'): 1, ('train', 'good'): 1, ('val', 'good'): 1}
    assert counts(visa) == {('', 'Anomaly'): 1, ('', 'Normal'): 1}
    masks = {p.name: read_folder(p).set_index('gt_label').gt_mask_path.drop_duplicates() for p in (btad, loco, visa)}
    assert masks['btad']['ko'] == str(btad/'ground_truth'/'ko'/'2.png') and masks['visa']['Anomaly'].endswith('Masks/Anomaly/1.png')
    assert mask_paths(masks['loco']['structural']) == [str(loco/'ground_truth'/'structural'/'3'/f'00{i}.png') for i in range(2)]


@pytest.mark.parametrize('names, why', [
    (['train/IO/1.png', 'test/io/2.png'], "'IO' and 'io' differ only in case"),
    (['train/IO/1.png', 'test/IO /2.png'], "'IO' and 'IO ' differ only in case, spaces"),
    (['train/Maß/1.png', 'test/MASS/2.png'], 'differ only in case'),
    (['train/é/1.png', 'test/e\u0301/2.png'], 'accents that look alike'),
    (['train/IO/1.png', 'eval/IO/2.png'], "'eval' lies beside the split 'train', but is no split"),
    (['valid/IO/1.png', 'val/IO/2.png'], "two folders of the split 'val'"),
    (['train/1.png', 'test/2.png'], 'holds 1 pictures, but no class folders'),
    (['1.png', '2.png'], 'holds 2 pictures, but no class folders'),
    (['data/IO/1.png', 'data/NIO/2.png'], 'holds nothing but data'),
    (['day 1/IO/1.png', 'day 1/NIO/2.png', 'day 2/IO/3.png'], "Is 'day 1' the class, or 'IO'?"),
    (['bottle/train/good/1.png', 'bottle/test/good/1.png', 'cable/train/good/1.png'], 'no class folder holds a picture directly'),
    (['IO/1.png', 'NIO/2.png', 'NIO/masks/2.png'], "holds the folder of masks 'masks'"),
    (['IO/1.png', 'NIO/2.png', 'NIO/2_mask.png'], 'looks like its mask'),
    (['images/1.png', 'masks/1.png'], 'images is no class'),
    (['trainA/1.png', 'trainB/2.png'], 'trainA is called nearly like a split'),
    (['good/1.png', 'test 2/2.png'], 'test 2 is called nearly like a split'),
    (['good/1.png', 'training/2.png'], "'good' lies beside the split 'training'"),
    (['train/1.png', 'train/1_GT.png', 'test/2.png'], 'but no class folders'),
    (['train/IO/1.png', 'unlabelled/2.png'], "'unlabelled' lies beside the split 'train'"),
    (['JPEGImages/1.png', 'SegmentationClass/1.png'], 'JPEGImages is no class'),
    (['train/images/1.png', 'valid/images/2.png'], 'images is no class'),
    (['train/good/1.png', 'test/good/2.png', 'test/crack/3.png', 'ground_truth/crack/9_mask.png'], 'none of its 1 masks belongs'),
    (['train/good/1.png', 'test/notch/2.png', 'test/crack/3.png', 'ground_truth/crack/3_mask.png'], "class 'notch' has no masks"),
])
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, names, why):
    draw(tmp_path, *names)
    with pytest.raises(UserError) as refused: read_folder(tmp_path)
    assert why in str(refused.value) and '\n' not in str(refused.value)


@pytest.mark.parametrize('text', ['sep=;\r\nimage;label;group\r\nIO/0.png;gut;Teil 1,5\r\nNIO/0.png;schlecht;Teil 2\r\n;;\r\n', 'image\tlabel\tgroup\nIO/0.png\tgut\tTeil 1,5\n\nNIO/0.png\tschlecht\tTeil 2\n',
    '\ufeff"image";"label";"group"\r"IO/0.png";"gut";"Teil 1,5"\r"NIO/0.png";"schlecht";"Teil 2"\r', 'image;label;group;note, more\nIO/0.png;gut;Teil 1,5;a,b,c\nNIO/0.png;schlecht;Teil 2\n'])
def test_an_index_is_read_as_spreadsheets_write_it(tmp_path, text):
    draw(tmp_path, 'IO/0.png', 'NIO/0.png'); (tmp_path/'index.csv').write_bytes(text.encode())
    assert read_folder(tmp_path)[['gt_label', 'group']].values.tolist() == [['gut', 'Teil 1,5'], ['schlecht', 'Teil 2']]


@pytest.mark.parametrize('text, why', [
    ('image,label,Split\n0.png,a,train\n', "'Split' would not be read; call it 'split'"), ('image,label,masks\n0.png,a,1.png\n', "call it 'mask'"), ('image,label,mask_path\n', "call it 'mask'"),
    ('image,label\n0.png,crack,deep\n', 'line 2: 3 cells, but 2 columns'), ('image,label,label\n0.png,a,b\n', "two columns are called 'label'"),
    ('image,label\n\n\n0.png,a\n9.png,a\n', "line 5: '9.png' does not exist"), ('image,label\n0.png,"a\n1.png,b\n', 'line 3: this is no CSV'), ('image,label\n0.png,a\0b\n', 'control characters'),
    ('image,label\n0.png,a b\n1.png,a\u200b b\n', 'signs that are not seen'),
    (f'image,label\n{"0"*300}.png,a\n', 'line 2: no file can have the name'), ('image,label\nC:/0.png,a\n', 'line 2: .*leaves the folder'), ('image,label,mask\n0.png,a,m\0.png\n', 'line 2: .*control characters')])
def test_an_index_that_would_lose_something_is_refused(tmp_path, text, why):
    draw(tmp_path, '0.png', '1.png'); (tmp_path/'index.csv').write_text(text)
    with pytest.raises(UserError, match=why): read_folder(tmp_path)


@pytest.mark.parametrize('names', [('train_good', 'train_bad', 'test_good', 'test_bad'), ('Trainingsbilder', 'Testbilder'), ('01_train', '02_test'), ('images_train', 'images_val')])
def test_folders_called_after_splits_are_no_classes(tmp_path, names):
    draw(tmp_path, *(f'{name}/{i}.png' for name in names for i in range(2)))
    with pytest.raises(UserError, match='called after a split'): read_folder(tmp_path)
    draw(tmp_path/'parts', 'valve/0.png', 'test_pad/0.png'); assert len(read_folder(tmp_path/'parts')) == 2


@pytest.mark.parametrize('name', ['scene_gt.json', 'obj.data'])
def test_channels_of_an_annotated_set_are_no_classes(tmp_path, name):
    draw(tmp_path, 'rgb/0.png', 'depth/0.png', 'mask_visib/0.png'); (tmp_path/name).touch()
    with pytest.raises(UserError, match='is an annotated set .*its folders are no classes'): read_folder(tmp_path)


def test_labels_are_trimmed_and_composed(tmp_path):
    draw(tmp_path, 'IO /1.png', unicodedata.normalize('NFD', 'Mängel') + '/2.png')
    assert sorted(set(read_folder(tmp_path).gt_label)) == ['IO', 'Mängel']


def test_hidden_folders_and_what_systems_leave_behind_are_not_read(tmp_path):
    draw(tmp_path/'.set', 'a/1.png', 'a/.thumbs/1.png', 'a/.ipynb_checkpoints/1-checkpoint.png', 'b/1.png', 'b/@eaDir/1.png',
         '__MACOSX/a/1.png')
    (tmp_path/'.set'/'b'/'._1.png').touch()
    assert counts(tmp_path/'.set') == {('', 'a'): 1, ('', 'b'): 1}


def test_linked_folders_are_read_but_not_in_circles(tmp_path):
    draw(tmp_path/'elsewhere', '1.png', 'more/2.png'); draw(tmp_path/'set', 'b/1.png')
    (tmp_path/'set'/'a').symlink_to(tmp_path/'elsewhere')
    (tmp_path/'elsewhere'/'more'/'up').symlink_to(tmp_path/'elsewhere')
    assert counts(tmp_path/'set') == {('', 'a'): 2, ('', 'b'): 1}


def test_a_jfif_is_a_jpeg(tmp_path):
    for label in ('IO', 'NIO'):
        (tmp_path/label).mkdir()
        (tmp_path/label/'1.JFIF').write_bytes(to_jpeg(np.full((8, 8, 3), 90, np.uint8)))
    table = read_folder(tmp_path)
    assert len(table) == 2 and abs(int(read_picture(table.image_path[0]).mean()) - 90) < 3


@pytest.mark.parametrize('names, groups, rows, missed', [
    (['00000', '00001', '00002'], 2, 0, 0), (['00000.png', '00001.png', '00002.png'], 2, 0, 0),
    (['images/00000.png', 'images\\00001.png', '00002'], 2, 0, 0), (['00000', '00001', '7'], 2, 1, 1)])
def test_facts_are_matched_however_their_names_are_written(tmp_path, names, groups, rows, missed):
    yolo(tmp_path, 3)
    (tmp_path/'facts.csv').write_text('image,group\n' + ''.join(f'{name},part {i//2}\n' for i, name in enumerate(names)))
    for path in (tmp_path, tmp_path/'data.yaml'):
        pools, inventories = read_pools(dict(real=path), real='')
        unused = {e.reason: e.count for e in inventories['real'].left_out}
        assert pools['real'].table.group.nunique() == groups == inventories['real'].groups
        assert unused.get('rows of facts.csv without a picture', 0) == rows and unused.get('pictures without a row in facts.csv', 0) == missed


def test_facts_of_no_picture_are_an_error(tmp_path):
    yolo(tmp_path, 3)
    (tmp_path/'facts.csv').write_text('image,group\na,1\nb,1\n')
    with pytest.raises(UserError, match=r"facts.csv: none of its 2 names \(e.g. 'a'\) is a picture of the set \(e.g. '00000'\)"): read_pool(tmp_path)
    (tmp_path/'facts.csv').write_text('image,group\n00000,1\n00000.png,2\n')
    with pytest.raises(UserError, match="names '00000.png' twice, also as '00000'"): read_pool(tmp_path)
    (tmp_path/'facts.csv').write_bytes('image,group\nü,1\n'.encode('latin-1'))
    with pytest.raises(UserError, match='is not UTF-8'): read_pool(tmp_path)


def test_a_set_that_is_nowhere_near_annotated_says_what_can_be_read(tmp_path):
    draw(tmp_path/'frames', 'a.png')
    with pytest.raises(UserError, match='holds neither frames nor annotations in a format that can be read'): read_pool(tmp_path)


def test_what_was_read_is_counted_with_what_was_left_out(tmp_path, capsys):
    draw(tmp_path, *(f'{split}/{label}/{i}.png' for split in ('train', 'valid') for label in ('IO', 'NIO') for i in range(3)),
         'overview.png', 'train/IO/.thumbs/0.png')
    for name in ('IO/1.heic', 'IO/2.HEIC', 'NIO/scan', 'NIO/notes.txt'): (tmp_path/'train'/name).touch()
    (tmp_path/'train'/'IO'/'gone.png').symlink_to(tmp_path/'nothing')
    tables, inventories = read_tables(dict(queries=tmp_path), queries='train', references='')
    assert len(tables['queries']) == 6 and list(tables) == ['queries']
    assert {(e.count, e.reason) for e in inventories['queries'].left_out} == {
        (6, 'of the split val'), (2, 'with the suffix .heic'), (1, 'beside the class folders'), (1, 'hidden'), (1, 'without a suffix'), (1, 'links to nothing')}
    said = capsys.readouterr().out
    assert said.startswith('Read queries: 6 pictures in 2 classes (IO 3, NIO 3), 6 groups; splits train 6; left out: 6 of the split val (')
    assert '2 with the suffix .heic (train/IO/1.heic)' in said and said.count('\n') == 1
    assert plain_inventories(inventories)[0]['pictures'] == 6 and 'overview.png' in inventory_section(inventories).html


def yolo(root: Path, n: int) -> Path:
    "A YOLO set of n pictures, each with one box"
    draw(root, *(f'images/{i:05}.png' for i in range(n)))
    (root/'labels').mkdir()
    for i in range(n): (root/'labels'/f'{i:05}.txt').write_text('0 .5 .5 .5 .5\n')
    (root/'data.yaml').write_text('train: images\nnames: [crack]\n')
    return root


FOLDERS = st.sampled_from(['IO', 'NIO', 'io', 'good', 'train', 'Valid', 'TEST', 'testing', 'ground_truth', 'masks', 'images', 'day 1',
                           '.thumbs', '__MACOSX', 'data'])
FILES = st.sampled_from(['1.png', '2.jpg', '3.jfif', '1_mask.png', '.4.png', 'notes.txt', '5.heic', 'Thumbs.db', 'a.pdf'])
ANY = st.tuples(st.lists(FOLDERS, max_size=3), FILES)
CLASSED = st.tuples(st.tuples(st.sampled_from(['IO', 'NIO'])), st.sampled_from(['1.png', '2.jpg', '3.jfif']))
SPLIT = st.tuples(st.tuples(st.sampled_from(['train', 'Valid', 'TEST']), st.sampled_from(['IO', 'NIO'])), st.sampled_from(['1.png', '2.jpg']))
TREES = st.one_of(st.lists(ANY, min_size=1, max_size=10), *(
    st.tuples(st.lists(kind, min_size=1, max_size=9), st.lists(ANY, max_size=2)).map(lambda t: t[0] + t[1]) for kind in (CLASSED, SPLIT)))


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_any_tree_is_read_whole_or_refused(tree):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)/'set'
        for folders, file in tree:
            root.joinpath(*folders).mkdir(parents=True, exist_ok=True)
            root.joinpath(*folders, file).touch()
        try: table = read_folder(root)
        except UserError as error: assert '\n' not in str(error); return
        assert not [label for label in table.gt_label if split_of(label)] and set(table.split) <= {'', 'train', 'val', 'test'}
        used = {*table.image_path, *(mask for masks in table.gt_mask_path for mask in mask_paths(masks))}
        unused = {name for _, name in unused_files(root, used)}
        for p in root.rglob('*'):
            if p.suffix in (*SUFFIXES, '.heic', '.pdf') and not p.name.startswith('._'):
                hidden = is_hidden(p.relative_to(root).as_posix())
                assert str(p) in used or p.relative_to(root).as_posix() in unused or hidden and p.suffix not in SUFFIXES, p


def test_annotated_sets_without_a_single_object_are_refused(tmp_path):
    yolo(tmp_path, 2)
    for p in (tmp_path/'labels').iterdir(): p.write_text('')
    _, inventories = read_pools(dict(real=tmp_path), real='')
    with pytest.raises(UserError, match="The 2 pictures of 'real' hold no annotated object"): check_objects(inventories)


def test_an_inspection_says_first_what_it_read_and_what_not(tmp_path):
    draw(tmp_path/'elsewhere', '3.png'); draw(tmp_path/'parts', '1.png', '2.JPG')
    (tmp_path/'parts'/'raw.dng').touch(); (tmp_path/'parts'/'linked').symlink_to(tmp_path/'elsewhere')
    assert list(image_files(tmp_path/'parts')) and len(image_files(tmp_path/'parts')) == 3
    assert source_in_words(str(tmp_path/'parts')) == '3 pictures of parts; left out: 1 with the suffix .dng (raw.dng)'
