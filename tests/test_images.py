"""Pictures from anywhere: whatever is wrong with a file, it is one clear sentence or the right picture."""
import io

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from inspect_lib.core.error import UserError
from inspect_lib.core.image import decode, read_image, write_image
from inspect_lib.core.seed import generator

PICTURE = generator(0, 'picture').integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(form: str, picture=PICTURE, **more) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=form, **more)
    return buffer.getvalue()


def test_decompression_bomb(tmp_path):
    path = tmp_path/'bomb.png'
    Image.new('1', (30_000, 20_000)).save(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match='pixels'): read_image(path)


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'TIFF', 'BMP', 'WEBP'])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_never_surprise(form, data):
    "Cut off anywhere, or with bytes changed anywhere: a `UserError`, or an RGB picture"
    raw = bytearray(encoded(form))
    change = st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(change, max_size=4)): raw[at] = value
    try: image = decode(io.BytesIO(bytes(raw[:data.draw(st.integers(0, len(raw)))])), 'damaged')
    except UserError as error: assert 'damaged' in str(error)
    else: assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_exif_turn(tmp_path, orientation):
    "The camera stored the picture turned or flipped and says so; it is read as it was seen"
    turn = Image.Transpose
    undo = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM,
            turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270][orientation - 1]
    stored = Image.fromarray(PICTURE) if undo is None else Image.fromarray(PICTURE).transpose(undo)
    exif = stored.getexif(); exif[0x0112] = orientation
    stored.save(tmp_path/'turned.png', exif=exif)
    assert (read_image(tmp_path/'turned.png') == PICTURE).all()


@pytest.mark.parametrize('mode, tolerance', [
    ('L', 0), ('1', 0), ('P', 60), ('RGBA', 0), ('LA', 0), ('CMYK', 1), ('YCbCr', 3), ('I;16', 0),
])
def test_every_mode(tmp_path, mode, tolerance):
    grey = mode in ('L', 'LA', '1', 'I;16')
    source = Image.fromarray((PICTURE[..., 0] > 127) if mode == '1' else PICTURE[..., 0] if grey else PICTURE)
    expected = np.asarray(source.convert('RGB')).astype(int)
    image = Image.fromarray(PICTURE[..., 0].astype(np.uint16)*257) if mode == 'I;16' else source.convert(mode)
    image.save(path := tmp_path/('x.tif' if mode in ('CMYK', 'YCbCr') else 'x.png'))
    assert np.abs(read_image(path) - expected).max() <= tolerance


def test_transparent_is_laid_over_white(tmp_path):
    Image.fromarray(np.dstack([PICTURE, np.zeros((24, 32), np.uint8)])).save(tmp_path/'clear.png')
    assert (read_image(tmp_path/'clear.png') == 255).all()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_image(tmp_path/'a.png', PICTURE)
    with pytest.raises(UserError, match='uint8'): write_image(tmp_path/'a.png', PICTURE/255)
    assert (read_image(tmp_path/'a.png') == PICTURE).all() and len(list(tmp_path.iterdir())) == 1
