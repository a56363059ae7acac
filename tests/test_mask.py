"""Masks as other programs save them: the right pixels, or one sentence that names the file."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from PIL import Image

from inspect_lib.core.error import UserError
from inspect_lib.core.seed import generator
from inspect_lib.data.folder import read_folder
from inspect_lib.data.mask import check_masks, mask_paths, read_mask
from inspect_lib.formats.pool import read_pool

TRUTH = np.zeros((40, 60), bool)
TRUTH[10:20, 20:35] = True
NOISE = generator(0, 'mask').integers(0, 256, (40, 60, 3), dtype=np.uint8)


def palette(mask, *colours, numbers=(0, 1)) -> Image.Image:
    image = Image.fromarray(np.where(mask, numbers[1], numbers[0]).astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    return image


def layers(mask, *values) -> Image.Image:
    "A channel for each value; a pair is what is not marked, and what is"
    pairs = [value if isinstance(value, tuple) else (0, value) for value in values]
    return Image.fromarray(np.dstack([np.where(mask, b, a) for a, b in pairs]).astype(np.uint8), {2: 'LA', 3: 'RGB', 4: 'RGBA'}[len(values)])


SAVED = {
    '0 and 1': lambda m: Image.fromarray(np.uint8(m)), '0 and 128': lambda m: Image.fromarray(np.uint8(m)*128),
    '0 and 236': lambda m: Image.fromarray(np.uint8(m)*236), '0 and 255': lambda m: Image.fromarray(np.uint8(m)*255),
    'one bit': lambda m: Image.fromarray(m), '16 bits, 1': lambda m: Image.fromarray(np.uint16(m)),
    '16 bits, 255': lambda m: Image.fromarray(np.uint16(m)*255), '16 bits, 65535': lambda m: Image.fromarray(np.uint16(m)*65535),
    'red': lambda m: layers(m, 255, 0, 0), 'green': lambda m: layers(m, 0, 255, 0), 'dark blue': lambda m: layers(m, 0, 0, 9),
    'VOC': lambda m: palette(m, (0, 0, 0), (128, 0, 0)), 'green palette': lambda m: palette(m, (0, 0, 0), (0, 128, 0)),
    'palette of one black': lambda m: palette(m, (0, 0, 0), (0, 0, 0)), 'palette of greys': lambda m: palette(m, (255,)*3, (0,)*3, numbers=(1, 0)),
    'opaque': lambda m: layers(m, 255, 255, 255, (255, 255)), 'transparent': lambda m: layers(m, 255, 255, 255, 255),
    'grey and alpha': lambda m: layers(m, 255, 255), 'half-transparent red': lambda m: layers(m, 255, 0, 0, 90)}
REFUSED = {
    'photograph': (lambda m: Image.fromarray(NOISE), 'is no mask'), 'grey photograph': (lambda m: Image.fromarray(NOISE[..., 0]), 'is no mask'),
    'inverted': (lambda m: Image.fromarray(~m), 'looks inverted'), 'inverted colours': (lambda m: layers(~m, 255, 0, 0), 'looks inverted'),
    'alpha alone': (lambda m: layers(m, 0, 0, 0, 255), 'transparency and its colours'), 'white with alpha': (lambda m: layers(m, (255, 255), 255, 255, 255), 'mark different'),
    'two labels, no background': (lambda m: Image.fromarray(np.uint8(1 + m)), 'is no mask'),
    'black is number 1': (lambda m: palette(m, (0, 200, 0), (0, 0, 0)), 'shows number'),
    'undecided pixels': (lambda m: Image.fromarray(np.uint8(m) + 255*np.uint8(np.roll(m, 15, 0))), 'undecided'),
    'all white': (lambda m: Image.fromarray(np.uint8(m*0 + 255)), 'looks inverted'),
    'negative': (lambda m: Image.fromarray(-m.astype(np.int32)), 'whole numbers from 0'),
    'shares': (lambda m: Image.fromarray(np.float32(m)/2), 'whole numbers from 0')}


@pytest.mark.parametrize('name', SAVED)
def test_every_way_to_save_a_mask(tmp_path, name):
    SAVED[name](TRUTH).save(path := tmp_path/'m.png')
    assert (read_mask(path, (40, 60)) == TRUTH).all() and TRUTH.sum() == 150


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_ambiguous_is_refused(tmp_path, name):
    REFUSED[name][0](TRUTH).save(path := tmp_path/'m.tif')
    with pytest.raises(UserError, match=f'm.tif.*{REFUSED[name][1]}') as refused: read_mask(path)
    assert '\n' not in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(list(SAVED)), seed=st.integers(0, 9999), suffix=st.sampled_from(['png', 'tif']))
def test_any_shape_in_any_way(tmp_path_factory, name, seed, suffix):
    "Lines, specks and areas of any place: the pixels that were marked, in every encoding"
    rng, mask = generator(seed, 'shape'), np.zeros(tuple(generator(seed, 'size').integers(8, 70, 2)), bool)
    for _ in range(rng.integers(1, 5)):
        y, x = rng.integers(0, mask.shape)
        mask[y:y + rng.integers(1, 1 + mask.shape[0]//2), x:x + rng.integers(1, 1 + mask.shape[1]//2)] = True
    assume(mask.mean() < .5)
    SAVED[name](mask).save(path := tmp_path_factory.mktemp('mask')/f'm.{suffix}')
    assert (read_mask(path, mask.shape) == mask).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.sampled_from([2, 3, 5]), quality=st.sampled_from([0, 75, 95]))
def test_soft_edges_and_jpeg(tmp_path_factory, seed, scale, quality):
    "Scaled with antialiasing, or compressed: black and white, divided at half"
    rng, mask = generator(seed, 'soft'), np.zeros((120, 150), bool)
    y, x, h, w = *rng.integers(0, 60, 2), *rng.integers(20, 60, 2)
    mask[y:y + h, x:x + w] = True
    image = Image.fromarray(np.uint8(mask)*255).resize((150*scale//2, 120*scale//2), Image.Resampling.BILINEAR)
    path = tmp_path_factory.mktemp('soft')/('m.jpg' if quality else 'm.png')
    image.save(path, **(dict(quality=quality) if quality else {}))
    assert (read_mask(path) == (np.asarray(Image.open(path)) > 127)).all()


def test_numbers_of_classes_and_things(tmp_path):
    numbers = np.uint16(TRUTH); numbers[25:35, 5:25], numbers[25:35, 30:50] = 2, 300
    Image.fromarray(numbers).save(tmp_path/'things.png'); Image.fromarray(np.uint8(np.minimum(numbers, 120))).save(tmp_path/'classes.png')
    for name in ('things', 'classes'): assert (read_mask(tmp_path/f'{name}.png') == (numbers > 0)).all()


# ---------------------------------------------------------------- masks of a set

@pytest.fixture
def set_of_masks(tmp_path):
    "Two defective pictures and a good one; the first has two masks"
    for i in range(3): Image.fromarray(np.roll(NOISE, i, 0)).save(tmp_path/f'{i}.png')
    for name, mask in dict(a=TRUTH, b=np.roll(TRUTH, (15, -15), (0, 1)), empty=TRUTH & False, small=TRUTH[:20]).items():
        Image.fromarray(mask).save(tmp_path/f'{name}.png')
    def write(*rows): (tmp_path/'index.csv').write_text('\n'.join(['image,label,mask', *rows, ''])); return tmp_path
    return write


def test_two_rows_of_one_picture_are_one_picture(set_of_masks):
    table = read_folder(set_of_masks('0.png,scratch,a.png', '0.png,scratch,b.png', '1.png,scratch,a.png', '2.png,good,'))
    assert table.gt_label.tolist() == ['scratch', 'scratch', 'good'] and len(mask_paths(table.gt_mask_path[0])) == 2
    checked, counts = check_masks(table, table.gt_label == 'scratch')
    assert checked.equals(table) and (counts.read, counts.empty, counts.missing) == (2, 0, 0)


def test_two_kinds_in_one_picture_are_boxes_of_two_classes(set_of_masks):
    folder = set_of_masks('0.png,scratch,a.png', '0.png,dent,b.png', '2.png,good,')
    pool = read_pool(folder)
    assert len(pool) == 2 and sorted(pool.truths[0].label) == ['dent', 'scratch'] and pool.classes == ('dent', 'scratch')
    assert [20, 10, 35, 20] in pool.truths[0].xyxy.tolist()
    with pytest.raises(UserError, match="two different labels, 'scratch' and 'dent'"): read_folder(folder)


@pytest.mark.parametrize('rows, why', [
    (['0.png,scratch,empty.png', '1.png,scratch,a.png'], 'empty.png: no pixel is marked'),
    (['0.png,scratch,a.png', '2.png,good,b.png'], 'b.png marks 150 pixels of a picture whose label says good'),
    (['0.png,scratch,small.png'], 'small.png is 60 x 20 pixels, its picture 60 x 40'),
    (['0.png,scratch,1.png'], '1.png is no mask'),
])
def test_masks_that_contradict_their_picture(set_of_masks, rows, why):
    table = read_folder(set_of_masks(*rows))
    with pytest.raises(UserError, match=why): check_masks(table, table.gt_label == 'scratch')


def test_a_detector_never_learns_that_a_defect_is_nothing(set_of_masks):
    for row in ('1.png,scratch,empty.png', '1.png,scratch,'):
        folder = set_of_masks('0.png,scratch,a.png', row, '2.png,good,')
        with pytest.raises(UserError, match='1 pictures have a label that masks of other pictures mark.*1.png|empty.png'): read_pool(folder)
        pool = read_pool(folder, empty_masks='unknown')
        assert [len(t.label) for t in pool.truths] == [1, 0] and pool.masks.read == 1 and pool.masks.empty + pool.masks.missing == 1


def test_real_masks(real_data):
    "Magnetic tiles, from JPEG: read as black and white at half, but for the empty one of a defective picture"
    index = pd.read_csv(real_data/'magnetic_tile'/'index.csv', keep_default_na=False)
    for name in index['mask'].iloc[::9]:
        path = real_data/'magnetic_tile'/name
        assert (read_mask(path) == (np.asarray(Image.open(path).convert('L')) > 127)).all(), name
