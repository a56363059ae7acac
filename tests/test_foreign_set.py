"Sets that other programs wrote: layouts, names, encodings, crowds; any change to a valid file is read or refused in one sentence."
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from inspect_lib.core.error import UserError
from inspect_lib.core.file import read_json, write_json
from inspect_lib.data.sample import write_sample
from inspect_lib.formats.annotation import AnnotatedSet, Annotation, Picture, mask_area, read_annotations, to_rle
from inspect_lib.formats.bop import read_bop
from inspect_lib.formats.coco import read_coco, write_coco
from inspect_lib.formats.crop import write_crops
from inspect_lib.formats.export import FORMATS, export_frames, find_format, verify_export
from inspect_lib.formats.polygon import from_polygons
from inspect_lib.formats.pool import read_pool, read_set
from inspect_lib.formats.voc import write_voc
from inspect_lib.formats.yolo import read_yolo

@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')

def picture(path, size=(120, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size[::-1], 3), 90, np.uint8)).save(path)
    return path

def yolo(folder, head='train: images\nnames: [crack, pore]\n', labels='labels', text='0 .5 .5 .5 .5\n', names=('a', 'b')):
    for name in names: picture(folder/'images'/f'{name}.png')
    (folder/labels).mkdir(parents=True, exist_ok=True)
    for name in names: (folder/labels/f'{name}.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder/'data.yaml').write_bytes(head if isinstance(head, bytes) else head.encode())
    return folder

def coco(folder, file='annotations.json', prefix='images/', names=('a', 'b'), **more):
    for name in names: picture(folder/prefix/f'{name}.png')
    data = dict(images=[dict(id=i, file_name=f'{name}.png', width=120, height=80) for i, name in enumerate(names)], categories=[dict(id=0, name='dent')],
                annotations=[dict(id=i, image_id=i, category_id=0, bbox=[5, 6, 20, 10], segmentation=[[5, 6, 25, 6, 25, 16, 5, 16]], iscrowd=0) | more for i in range(len(names))])
    write_json(folder/file, data)
    return folder

# ---------------------------------------------------------------- YOLO

@pytest.mark.parametrize('labels', ['Labels', 'label', 'labels_old', 'annotations'])
def test_labels_under_another_name_are_an_error(tmp_path, labels):
    with pytest.raises(UserError, match=f'none of its 2 pictures has labels.*/{labels}; they belong into .*/labels'): read_set(yolo(tmp_path, labels=labels))

def test_labels_that_match_in_part_are_counted(tmp_path):
    yolo(tmp_path)
    (tmp_path/'labels'/'b.txt').rename(tmp_path/'labels'/'B.txt')
    read = read_pool(tmp_path)
    assert read.left_out == (('pictures without labels, read as empty', 'b.png'), ('labels without a picture', 'B.txt'))

def test_labels_in_two_places_are_an_error(tmp_path):
    yolo(tmp_path); (tmp_path/'labels'/'b.txt').rename(tmp_path/'images'/'b.txt')
    with pytest.raises(UserError, match='images/b.txt lies beside its picture, but the labels of other pictures'): read_set(tmp_path)

@pytest.mark.parametrize('key', ['Train', 'validaton', 'Names', 'kpt_shapes'])
def test_a_misspelt_key_is_an_error(tmp_path, key):
    with pytest.raises(UserError, match=f"'{key}' would not be read; write"): read_set(yolo(tmp_path, head=f'train: images\nnames: [a, b]\n{key}: images\n'.replace('names:' if key == 'Names' else '\0', 'nc: 2 #')))

def nearly_the_same(folder, form, names):
    "A set with two classes"
    if form == 'yolo': return yolo(folder, head=f'train: images\nnames: {json.dumps(names)}\n')
    coco(folder)
    if form == 'coco':
        data = read_json(folder/'annotations.json'); data['categories'] = [dict(id=i, name=name) for i, name in enumerate(names)]
        write_json(folder/'annotations.json', data); return folder
    if form == 'crops':
        (folder/'annotations.json').unlink()
        (folder/'index.csv').write_text('image,label,group,x0,y0,x1,y1\n' + ''.join(f'images/{p}.png,{name},,1,1,9,9\n' for p, name in zip('ab', names))); return folder
    (folder/'annotations.json').unlink(); (folder/'images').rename(folder/'JPEGImages'); (folder/'Annotations').mkdir()
    for p, name in zip('ab', names): (folder/'Annotations'/f'{p}.xml').write_text(f'<annotation><filename>{p}.png</filename><object><name>{name}</name><difficult>{int(p == "a")}</difficult>'
        '<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>')
    return folder

@pytest.mark.parametrize('form', ['yolo', 'coco', 'voc', 'crops'])
def test_classes_that_look_alike_are_an_error(tmp_path, form):
    with pytest.raises(UserError, match='differ only in case'): read_set(nearly_the_same(tmp_path/'0', form, ['crack', 'Crack']))
    assert set(read_set(nearly_the_same(tmp_path/'1', form, ['a', 'A'])).categories.values()) == {'a', 'A'} # Characters to be read

def test_objects_marked_difficult_or_to_be_ignored_are_left_out_with_a_count(tmp_path):
    reason = 'objects marked as crowd, difficult or to be ignored'
    hard = read_pool(nearly_the_same(tmp_path/'0', 'voc', ['crack', 'dent']))
    assert [len(t.label) for t in hard.truths] == [0, 1] and hard.left_out == ((reason, 'a'),)
    assert read_pool(coco(tmp_path/'1', ignore=1)).left_out == ((reason, 'a'), (reason, 'b'))
    with pytest.raises(UserError, match="'ignore' must be 0 or 1"): read_set(coco(tmp_path/'2', ignore='yes'))

def test_a_folder_says_which_of_its_files_may_be_the_annotations(tmp_path):
    yolo(tmp_path); (tmp_path/'data.yaml').rename(tmp_path/'dataset.yml')
    with pytest.raises(UserError, match='It holds dataset.yml: give the file itself'): read_pool(tmp_path)
    assert len(read_pool(tmp_path/'dataset.yml')) == 2

@pytest.mark.parametrize('content, why', [(b'', 'is empty'), (bytes(700), 'is empty'), (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'), (b'\0\0\0\x18ftypheic', 'HEIC')])
def test_files_that_only_look_like_pictures_are_called_what_they_are(tmp_path, content, why):
    yolo(tmp_path); (tmp_path/'images'/'a.png').write_bytes(content)
    with pytest.raises(UserError, match=f'a.png .*{why}'): read_pool(tmp_path)

def test_labels_beside_the_pictures_below_a_folder_called_images(tmp_path):
    picture(tmp_path/'images'/'set1'/'train'/'a.png')
    (tmp_path/'images'/'set1'/'train'/'a.txt').write_text('0 .5 .5 .5 .25\n')
    (tmp_path/'images'/'set1'/'data.yaml').write_text('train: train\nnames: [crack]\n')
    assert len(read_yolo(tmp_path/'images'/'set1').pictures[0].annotations) == 1

@pytest.mark.parametrize('shape, points', [('[2, 2]', '.3 .3 .6 .6'), ('[2, 3]', '.3 .3 2 .6 .6 0')])
def test_poses_are_read_as_their_boxes(tmp_path, shape, points):
    head = f'train: images\nnames: [bolt]\nkpt_shape: {shape}\n'
    read = read_yolo(yolo(tmp_path, head, text=f'0 .5 .5 .5 .5 {points}\n'))
    assert read.pictures[0].annotations == (Annotation(1, [30., 20., 90., 60.]),)
    assert read.left_out == (('poses, of which only the boxes are read', 'a.png'), ('poses, of which only the boxes are read', 'b.png'))
    with pytest.raises(UserError, match="a.txt, line 1: 'kpt_shape' asks for a box of 4 numbers"): read_yolo(yolo(tmp_path, head, text='0 .1 .1 .2 .2 .3 .1\n'))

def test_names_stay_the_text_that_was_written(tmp_path):
    words = ['NO', 'OK', 'on', 'y', '1e3', '007', '1.10', '12:30', '2026-01-01', '0x1F', '.inf']
    assert list(read_yolo(yolo(tmp_path, f"train: images\nnames: [{', '.join(words)}]\n")).categories.values()) == words
    for null in ('null', '~', ''):
        with pytest.raises(UserError, match='data.yaml, class 1: a name'): read_yolo(yolo(tmp_path, f'train: images\nnames:\n  - a\n  - {null}\n'))

@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'latin-1'])
@pytest.mark.parametrize('where', ['labels', 'head', 'coco', 'labelmap'])
def test_encodings(tmp_path, encoding, where):
    "A byte-order mark is accepted, another encoding is named with its file"
    file = dict(labels='labels/a.txt', head='data.yaml', coco='annotations.json', labelmap='labelmap.txt')[where]
    if where == 'coco': write_coco(read_coco(coco(tmp_path/'c')), tmp_path/'set')
    elif where == 'labelmap': write_voc(read_coco(coco(tmp_path/'c')), tmp_path/'set')
    else: yolo(tmp_path/'set')
    path = tmp_path/'set'/file
    text = path.read_text().replace('dent', 'Riß').replace('crack', 'Riß')
    path.write_bytes((text if where != 'labels' else text + ' ü'*(encoding == 'latin-1')).encode(encoding))
    if encoding != 'utf-8-sig':
        with pytest.raises(UserError, match=f'{Path(file).name} is not UTF-8'): read_set(tmp_path/'set')
    elif where != 'labelmap': assert read_set(tmp_path/'set').pictures[0].annotations

@pytest.mark.parametrize('train', ['../train/images', 'train/images', './train/images', 'list.txt', '[train/images, train/images]'])
def test_places_that_data_yaml_names(tmp_path, train):
    picture(tmp_path/'train'/'images'/'a.png')
    (tmp_path/'train'/'labels').mkdir(); (tmp_path/'train'/'labels'/'a.txt').write_text('0 .5 .5 .5 .5')
    (tmp_path/'list.txt').write_text('./train/images/a.png\n\n')
    (tmp_path/'data.yaml').write_text(f'train: {train}\nnames: [crack]\n')
    assert [len(p.annotations) for p in read_yolo(tmp_path).pictures] == [1]

# ---------------------------------------------------------------- COCO

@pytest.mark.parametrize('file, prefix, name', [('annotations.json', 'images/', '{}'), ('annotations.json', '', '{}'), ('annotations.json', 'images/', 'images/{}'),
                                                ('annotations.json', 'images/', 'images\\{}'), ('annotations/instances_default.json', 'images/', '{}'),
                                                ('_annotations.coco.json', '', '{}'), ('train/_annotations.coco.json', 'train/', '{}')])
def test_layouts_of_coco(tmp_path, file, prefix, name):
    data = read_json(coco(tmp_path, file, prefix)/file)
    for row in data['images']: row['file_name'] = name.format(row['file_name'])
    write_json(tmp_path/file, data)
    assert [len(p.annotations) for p in read_set(tmp_path).pictures] == [1, 1]

def test_several_coco_files_are_named(tmp_path):
    for split in ('train', 'valid'): coco(tmp_path, f'{split}/_annotations.coco.json', f'{split}/')
    with pytest.raises(UserError, match='holds 2 COCO files; give one of them: train/_annotations.coco.json, valid'): read_set(tmp_path)
    assert len(read_set(tmp_path/'valid').pictures) == 2

@pytest.mark.parametrize('name', [n for n in FORMATS if n not in ('folders', 'bop')])
def test_a_crowd_never_becomes_an_ordinary_object(tmp_path, name):
    data = read_json(coco(tmp_path)/'annotations.json')
    data['annotations'][1]['iscrowd'] = 1
    write_json(tmp_path/'annotations.json', data)
    read = read_coco(tmp_path)
    figures, _ = export_frames(read, tmp_path/'out', [name])
    crowds = FORMATS[name].crowds
    assert figures[name]['annotations'] == 1 + crowds and figures[name].get('crowds_left_out', 0) == (not crowds)
    back = read_set(tmp_path/'out'/name)
    assert sum(a.crowd for p in back.pictures for a in p.annotations) == crowds and sum(len(p.annotations) for p in back.pictures) == 1 + crowds
    assert verify_export(read, tmp_path/'out', name)['annotations'] == [1 + crowds]*2
    assert read_pool(tmp_path).left_out == (('objects marked as crowd, difficult or to be ignored', 'b'),)

def test_a_lost_crowd_is_missed(tmp_path):
    read = read_coco(coco(tmp_path, iscrowd=1))
    plain = replace(read, pictures=tuple(replace(p, annotations=tuple(replace(a, crowd=False) for a in p.annotations)) for p in read.pictures))
    write_coco(plain, tmp_path/'out'/'coco')
    with pytest.raises(UserError, match='crowds differ'): verify_export(read, tmp_path/'out', 'coco')
    for wrong in ('0', 2, None, [], .5):
        with pytest.raises(UserError, match="'iscrowd' must be 0 or 1"): read_coco(coco(tmp_path, iscrowd=wrong))

# ---------------------------------------------------------------- outlines

@pytest.mark.parametrize('ring', [(.1, .1, .5, .1001, .9, .1), (.5, .5, .5, .5, .5, .5), (0, 0, 0, 1, 0, .5), (.999, .999, 1, .9991, 1, 1)])
def test_outlines_without_a_pixel_centre_keep_their_object(tmp_path, ring):
    read = read_yolo(yolo(tmp_path/'in', text=f"0 {' '.join(map(str, ring))}\n", names=('a',)))
    a, = read.pictures[0].annotations
    assert a.visible and mask_area(a.rle) > 0
    formats = [n for n in FORMATS if n not in ('folders', 'bop')]
    export_frames(read, tmp_path/'out', formats)
    for name in formats: assert verify_export(read, tmp_path/'out', name)['annotations'] == [1, 1]

@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e10, 1e10) | st.floats(-30, 60), min_size=6, max_size=12), st.sampled_from([(20, 30), (1, 1), (3, 500)]))
def test_any_polygon_is_filled_or_refused(ring, size):
    try: assert mask_area(from_polygons([ring[:len(ring)//2*2]], size)) > 0
    except UserError: pass

def test_many_objects_in_one_picture_are_refused_before_they_are_made(tmp_path):
    with pytest.raises(UserError, match='a.txt has 10001 objects'): read_yolo(yolo(tmp_path/'y', text='0 .5 .5 .5 .5\n'*10_001, names=('a',)))
    data = read_json(coco(tmp_path/'c', names=('a',))/'annotations.json')
    data['annotations'] = [data['annotations'][0] | dict(id=i) for i in range(10_001)]
    write_json(tmp_path/'c'/'annotations.json', data)
    with pytest.raises(UserError, match='image 0 has 10001 objects'): read_coco(tmp_path/'c')

# ---------------------------------------------------------------- BOP

@pytest.mark.parametrize('folder, suffix, width', [('rgb', 'png', 6), ('rgb', 'jpg', 6), ('gray', 'tif', 6), ('gray', 'png', 4), ('rgb', 'jpg', 1)])
def test_bop_as_its_sets_come(tmp_path, folder, suffix, width):
    picture(tmp_path/folder/f'{3:0{width}}.{suffix}')
    (tmp_path/'mask_visib').mkdir()
    mask = np.zeros((80, 120), np.uint8); mask[10:20, 20:30] = 255
    Image.fromarray(mask).save(tmp_path/'mask_visib'/f'{3:0{width}}_000000.png')
    write_json(tmp_path/'scene_gt.json', {'3': [dict(obj_id=5, cam_R_m2c=[1, 0, 0, 0, 1, 0, 0, 0, 1], cam_t_m2c=[0, 0, 500])]})
    write_json(tmp_path/'scene_gt_info.json', {'3': [dict(bbox_obj=[20, 10, 10, 10], bbox_visib=[20, 10, 10, 10], visib_fract=1.)]})
    write_json(tmp_path/'scene_camera.json', {'3': dict(cam_K=[100, 0, 30, 0, 100, 20, 0, 0, 1], depth_scale=.1)})
    picture(tmp_path/folder/f'{4:0{width}}.{suffix}')
    read = read_set(tmp_path)
    assert mask_area(read.pictures[0].annotations[0].rle) == 100 and read.left_out == (('pictures without poses', f'{4:0{width}}.{suffix}'),)
    (tmp_path/folder/f'{3:0{width}}.{suffix}').unlink()
    with pytest.raises(UserError, match='image 3: its picture is missing'): read_bop(tmp_path)

# ---------------------------------------------------------------- names

HOSTILE = ['/var/tmp/x', '../x', 'a/../../x', 'C:\\x', 'C:x', '\\\\host\\x', '..\\x', 'a\0b', 'x'*300, '\ud800', '\udcff/../..', 'a\nb', 'a\x1b[2Jb', '\u202egnp.x', '', '.', '..', ' ']
RESERVED = ['CON', 'aux', 'nul.x', 'COM1', '.hidden', 'x.', ' x']

@pytest.mark.parametrize('hostile', HOSTILE + RESERVED)
@pytest.mark.parametrize('name', [n for n in FORMATS if n not in ('folders', 'bop')])
def test_no_writer_takes_a_hostile_name(tmp_path, name, hostile):
    picture(tmp_path/'a.png')
    objects = (Annotation(1, [5., 6., 25., 16.], to_rle(np.eye(80, 120, dtype=bool))),)
    bad = AnnotatedSet((Picture(hostile, tmp_path/'a.png', 80, 120, objects),), {1: 'dent'})
    with pytest.raises(UserError): find_format(name).write(bad, tmp_path/'out'/name)
    assert sorted(p.name for p in tmp_path.rglob('*')) in (['a.png'], ['a.png', 'out'])

@pytest.mark.parametrize('hostile', HOSTILE)
@pytest.mark.parametrize('form', ['coco', 'voc', 'bop', 'crops', 'yolo'])
def test_no_reader_takes_a_hostile_name(tmp_path, form, hostile):
    source = read_coco(coco(tmp_path/'c'))
    folder = tmp_path/form
    if form == 'coco':
        data = read_json(coco(folder)/'annotations.json'); data['images'][0]['file_name'] = hostile + '.png'*(hostile not in ('', '.', '..', ' '))
        (folder/'annotations.json').write_text(json.dumps(data))
    elif form == 'yolo': yolo(folder, json.dumps(dict(train='images', names=['a'], path=hostile or '\0'), ensure_ascii='\ud800' in hostile or '\udcff' in hostile))
    elif form == 'voc':
        write_voc(source, folder)
        if not hostile.isprintable(): pytest.skip('XML cannot hold it')
        path = sorted((folder/'Annotations').iterdir())[0]
        path.write_text(path.read_text().replace('<filename>a.png', f'<filename>{hostile}'), encoding='utf-8')
    elif form == 'crops':
        write_crops(source, folder)
        index = folder/'index.csv'
        index.write_bytes(index.read_bytes().replace(b'dent/a_0.png', json.dumps(hostile, ensure_ascii=False).encode('utf-8', 'surrogatepass')))
    else:
        paths = write_sample(tmp_path/'frames', 1)
        export_frames(paths, tmp_path, ['bop'])
        data = read_json(folder/'export.json'); data['pictures'][0] = hostile
        (folder/'export.json').write_text(json.dumps(data))
    try: read = find_format(form).read(folder)
    except UserError: return
    assert form == 'yolo' and [p.path.parent.resolve() for p in read.pictures] == [folder/'images']*2 # A root that is not there is not used

# ---------------------------------------------------------------- anything

ODD = st.sampled_from([None, True, -1, 0, 10**30, 1e308, float('nan'), float('inf'), '', 'x', '\0', '\ud800', '../x', [], {}, [[]], {'id': {}}, [None]*5, 'a'*5000, -2**63, .5, '9'*4000])

def changed(draw, value):
    "One place of plain data, somewhere, replaced, removed or doubled"
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 3)): return {k: v for k, v in value.items() if k != key}
        return value | {key: changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        i = draw(st.integers(0, len(value) - 1))
        return [*value[:i], *draw(st.sampled_from([(), (value[i],)*2])), *value[i + 1:]] if not draw(st.integers(0, 3)) else [*value[:i], changed(draw, value[i]), *value[i + 1:]]
    return draw(ODD)

def damaged(draw, raw):
    "Some bytes replaced, removed or repeated"
    for _ in range(draw(st.integers(1, 3))):
        i, n = draw(st.integers(0, len(raw))), draw(st.integers(0, 8))
        raw = raw[:i] + draw(st.sampled_from([b'', b'\0', b'\xff', b'-', b'9'*40, b'\n', b' ', b'<a>', b'[', b'nan', b',', b'1e999', b'"'])) + raw[i + n:]
    return raw

@pytest.fixture(scope='module')
def valid(tmp_path_factory):
    "One set in every format"
    folder = tmp_path_factory.mktemp('valid')
    paths = write_sample(folder/'frames', 2)
    export_frames(read_annotations(paths), folder, FORMATS)
    return folder

@settings(max_examples=70, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize('name', FORMATS)
def test_any_change_to_a_valid_set_is_read_or_refused(valid, tmp_path_factory, name, data):
    form, source = find_format(name), valid/name
    texts = [p for p in sorted(source.rglob('*')) if p.suffix in ('.json', '.txt', '.yaml', '.csv', '.xml')]
    path = data.draw(st.sampled_from(texts))
    raw = path.read_bytes()
    try:
        if path.suffix == '.json' and data.draw(st.booleans()): path.write_text(json.dumps(changed(data.draw, json.loads(raw))))
        else: path.write_bytes(damaged(data.draw, raw))
        try: read = form.read(source)
        except UserError as error: assert '\n' not in str(error) and len(str(error)) < 2000
        else: assert isinstance(read, AnnotatedSet) and all(a.category in read.categories for p in read.pictures for a in p.annotations)
    finally: path.write_bytes(raw)

@pytest.mark.parametrize('name', ['=1+1', '+5V', '-a', '@x'])
def test_no_table_holds_a_formula(tmp_path, name):
    read = read_coco(coco(tmp_path/'c'))
    with pytest.raises(UserError, match='for a formula'): write_crops(replace(read, categories={0: name}), tmp_path/'out')
    write_coco(replace(read, categories={0: name}), tmp_path/'coco')
    assert read_coco(tmp_path/'coco').categories == {0: name}
