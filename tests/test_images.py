"""Pictures from anywhere: whatever is wrong with a file, it is one clear sentence or the right picture."""
import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from inspect_lib.core.error import UserError
from inspect_lib.core.image import decode, read_image, write_image
from inspect_lib.core.picture_file import picture_size
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
    for read in (read_image, picture_size):
        with pytest.raises(UserError, match='bomb.png.*pixels') as refused: read(path)
        assert '\n' not in str(refused.value)


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


# ---------------------------------------------------------------- one picture, one size

TURN = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270] # How a camera stores what it notes as 1..8
SAVED = [('png', '1'), ('png', 'L'), ('png', 'LA'), ('png', 'P'), ('png', 'RGB'), ('png', 'RGBA'), ('png', 'I;16'), ('jpg', 'L'),
         ('jpg', 'RGB'), ('jpg', 'CMYK'), ('tif', '1'), ('tif', 'L'), ('tif', 'RGB'), ('tif', 'RGBA'), ('tif', 'CMYK'), ('tif', 'I;16'),
         ('webp', 'RGB'), ('webp', 'RGBA'), ('bmp', 'RGB'), ('gif', 'P'), ('ppm', 'RGB'), ('pgm', 'L')]


def drawn(mode: str, size, seed: int) -> Image.Image:
    "A picture with something in every mode; the whole range of sixteen bits"
    pixels = generator(seed, 'drawn').integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    if mode == 'I;16': return Image.fromarray(pixels[..., 0].astype(np.uint16)*257)
    return Image.fromarray(pixels).convert(mode)


@settings(max_examples=150, deadline=None)
@given(saved=st.sampled_from(SAVED), orientation=st.integers(0, 9), seed=st.integers(0, 99),
       size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_the_size_is_that_of_the_pixels(tmp_path_factory, saved, orientation, seed, size):
    (suffix, mode), path = saved, tmp_path_factory.mktemp('size')/f'a.{saved[0]}'
    seen = drawn(mode, size, seed)
    holds_exif = suffix in ('png', 'jpg', 'tif', 'webp')
    stored = seen.transpose(turn) if holds_exif and 1 < orientation < 9 and (turn := TURN[orientation - 1]) is not None else seen
    exif = Image.Exif(); exif[274] = orientation
    stored.save(path, **(dict(exif=exif) if holds_exif else {}), **(dict(lossless=True) if suffix == 'webp' else {}))
    image = read_image(path)
    assert picture_size(path) == image.shape[1::-1] == seen.size
    if suffix not in ('jpg', 'webp', 'gif') and mode in ('1', 'L', 'P', 'RGB', 'I;16'):
        expected = np.repeat(np.asarray(seen)[..., None]//257, 3, 2) if mode == 'I;16' else np.asarray(seen.convert('RGB'))
        assert (image == expected).all()


@settings(max_examples=120, deadline=None)
@given(suffix=st.sampled_from(['png', 'jpg', 'tif', 'webp']), exif=st.binary(max_size=60), kind=st.sampled_from([1, 2, 3, 4, 5, 7, 10, 12, 13]),
       value=st.binary(min_size=4, max_size=4), count=st.sampled_from([0, 1, 2, 5]))
def test_odd_notes_are_one_size_or_one_sentence(tmp_path_factory, suffix, exif, kind, value, count):
    "Arbitrary bytes for EXIF, or an orientation of another type and count"
    path = tmp_path_factory.mktemp('odd')/f'a.{suffix}'
    note = b'Exif\0\0II*\0\x08\0\0\0\x01\0' + struct.pack('<HHI', 274, kind, count) + value + b'\0'*4
    if suffix == 'tif':
        entries = bytearray(encoded('TIFF')) # The orientation replaces an entry of the file's own directory
        at = entries.find(struct.pack('<HHI', 296, 3, 1)) if struct.pack('<HHI', 296, 3, 1) in entries else -1
        if at >= 0: entries[at:at + 12] = struct.pack('<HHI', 274, kind, count) + value
        path.write_bytes(bytes(entries))
    else: Image.fromarray(PICTURE).save(path, exif=note if len(exif) % 2 else exif)
    def answer(read):
        try: return read(path)
        except UserError as error: assert '\n' not in str(error) and 'a.' in str(error)
    size, image = answer(picture_size), answer(read_image)
    assert image is None or size == image.shape[1::-1]


@pytest.mark.parametrize('form', ['TIFF', 'GIF', 'WEBP', 'PNG'])
def test_several_pictures_in_one_file(tmp_path, form):
    pages = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    pages[0].save(tmp_path/'stack', format=form, save_all=True, append_images=pages[1:])
    for read in (read_image, picture_size):
        with pytest.raises(UserError, match='holds 2 pictures'): read(tmp_path/'stack')


def test_what_is_read_is_annotated(tmp_path):
    "A TIFF whose rows were stored sideways: a box lies where it was drawn"
    from inspect_lib.formats.pool import read_pool
    seen = np.zeros((40, 60, 3), np.uint8); seen[5:15, 40:55] = 200
    exif = Image.Exif(); exif[274] = 6
    for suffix in ('tif', 'jpg'):
        folder = tmp_path/suffix
        for part in ('images', 'labels'): (folder/part).mkdir(parents=True)
        Image.fromarray(np.rot90(seen).copy()).save(folder/'images'/f'a.{suffix}', exif=exif)
        (folder/'labels'/'a.txt').write_text(f'0 {47.5/60} {10/40} {15/60} {10/40}\n')
        (folder/'data.yaml').write_text('train: images\nnames: [bright]\n')
        (x0, y0, x1, y1), = read_pool(folder).truths[0].xyxy.round().astype(int)
        image = read_image(folder/'images'/f'a.{suffix}')
        assert image.shape == (40, 60, 3) and image[y0:y1, x0:x1].mean() > 180 and image.sum() < image[y0:y1, x0:x1].sum()*1.05


# ---------------------------------------------------------------- twelve bits in sixteen

GREY = generator(1, 'grey').integers(0, 256, (24, 32), dtype=np.uint8)


@pytest.mark.parametrize('bits', [9, 10, 12, 14])
@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'colour.png', 'colour.tif'])
def test_fewer_bits_than_the_file_holds(tmp_path, bits, name):
    "Refused with what is to be set; with that, it is the picture of eight bits"
    colours, white = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]]) if 'colour' in name else GREY, 2**bits - 1
    deep = np.round(colours/255*white).astype(np.uint16)
    cv2.imwrite(str(tmp_path/name), deep[..., ::-1] if deep.ndim == 3 else deep)
    with pytest.raises(UserError, match=rf'{name}.*white_level: (\d+)') as refused: read_image(tmp_path/name)
    assert bits == 9 or f'white_level: {white})' in str(refused.value)
    image = read_image(tmp_path/name, white_level=white)
    assert np.abs(image.astype(int) - (colours if colours.ndim == 3 else colours[..., None])).max() <= 1
    with pytest.raises(UserError, match='is above the white level 255'): read_image(tmp_path/name, white_level=255)


def test_sixteen_bits_are_not_stretched_picture_by_picture(tmp_path):
    for name, share in (('bright', 1.), ('dim', .4)): Image.fromarray((GREY*257.*share).astype(np.uint16)).save(tmp_path/f'{name}.png')
    bright, dim = (read_image(tmp_path/f'{name}.png').astype(int) for name in ('bright', 'dim'))
    assert np.abs(dim - .4*bright).max() <= 1
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path/'black.png')
    assert read_image(tmp_path/'black.png').max() == 0 # Black by any white level
