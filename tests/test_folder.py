"""Picture folders as people sort them: recognised as what they are, or refused with what was expected; nothing is lost silently."""
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from inspect_lib.core.error import UserError
from inspect_lib.core.image import SUFFIXES, to_jpeg, write_image
from inspect_lib.data.folder import read_folder, read_picture, select_rows
from inspect_lib.core.file import folder_files
from inspect_lib.data.layout import split_of


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
    assert masks['loco']['structural'].splitlines() == [str(loco/'ground_truth'/'structural'/'3'/f'00{i}.png') for i in range(2)]


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
    (['JPEGImages/1.png', 'SegmentationClass/1.png'], 'JPEGImages is no class'),
    (['train/images/1.png', 'valid/images/2.png'], 'images is no class'),
    (['train/good/1.png', 'test/good/2.png', 'test/crack/3.png', 'ground_truth/crack/9_mask.png'], 'none of its 1 masks belongs'),
    (['train/good/1.png', 'test/notch/2.png', 'test/crack/3.png', 'ground_truth/crack/3_mask.png'], "class 'notch' has no masks"),
])
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, names, why):
    draw(tmp_path, *names)
    with pytest.raises(UserError) as refused: read_folder(tmp_path)
    assert why in str(refused.value) and '\n' not in str(refused.value)


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


FOLDERS = st.sampled_from(['IO', 'NIO', 'io', 'good', 'train', 'Valid', 'TEST', 'testing', 'ground_truth', 'masks', 'images', 'day 1',
                           '.thumbs', '__MACOSX', 'data'])
FILES = st.sampled_from(['1.png', '2.jpg', '3.jfif', '1_mask.png', '.4.png', 'notes.txt', '5.heic', 'Thumbs.db', 'a.pdf'])
TREES = st.lists(st.tuples(st.lists(FOLDERS, max_size=3), FILES), min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_tree_is_read_whole_or_refused(tree):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)/'set'
        root.mkdir()
        for folders, file in tree:
            (root.joinpath(*folders)).mkdir(parents=True, exist_ok=True)
            root.joinpath(*folders, file).touch()
        try: table = read_folder(root)
        except UserError as error: assert '\n' not in str(error); return
        used = {*table.image_path, *(m for masks in table.gt_mask_path for m in masks.splitlines())}
        assert not [label for label in table.gt_label if split_of(label)] and set(table.split) <= {'', 'train', 'val', 'test'}
        for p in folder_files(root).values(): # What is not used lies beside the class folders, or is a mask without a picture
            beside = p.parent == root or split_of(p.parent.name) or {'masks', 'ground_truth'} & set(p.parts)
            if p.suffix in SUFFIXES: assert str(p) in used or beside, p
