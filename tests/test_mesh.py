"Model files of every format: drawn ones whose box, area, volume and bodies are known, against other readers, and random shapes."
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from inspect_lib.core.error import UserError
from inspect_lib.render.box import load_box
from inspect_lib.render.glb import Y_UP, read_glb
from inspect_lib.render.mesh import load_bodies, load_part
from inspect_lib.render.model_file import read_obj, read_ply, read_stl
from inspect_lib.render.part import Part, is_watertight, size, volume
from inspect_lib.render.step import read_step

# ---------------------------------------------------------------- two bodies: a U whose ends are concave, and a cube beside it

U = np.array([(0, 0), (30, 0), (30, 20), (24, 20), (24, 6), (6, 6), (6, 20), (0, 20)])
POINTS = np.array([*((x, y, z) for z in (0, 10) for x, y in U), *((x, y, z) for x in (40, 50) for y in (0, 10) for z in (20, 30))], float)
U_FACES = [[7, 6, 5, 4, 3, 2, 1, 0], [8, 9, 10, 11, 12, 13, 14, 15]] + [[k, (k + 1) % 8, (k + 1) % 8 + 8, k + 8] for k in range(8)]
CUBE_FACES = [[16 + k for k in f] for f in ([0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3])]
SOLIDS = {'rim': U_FACES, 'body': CUBE_FACES}
TRUTH = {'rim': dict(size=[30, 20, 10], volume=3480., area=2*348. + 10*128), 'body': dict(size=[10, 10, 10], volume=1000., area=600.)}


def area(part): return trimesh.Trimesh(part.vertices, part.faces, process=False).area


def triangles(faces): # Of a few faces, as written down: nothing of the library's
    cuts = {8: [[0, 5, 6], [0, 6, 7], [1, 2, 3], [1, 3, 4], [0, 1, 4], [0, 4, 5]], 4: [[0, 1, 2], [0, 2, 3]]}
    turned = {8: [[7 - k for k in t][::-1] for t in cuts[8]]}
    return np.array([[f[k] for k in t] for f in faces for t in (turned[8] if len(f) == 8 and f[0] == 7 else cuts[len(f)])])


def obj(faces_of=lambda k: k + 1, key='o'):
    lines = [f'v {x:g} {y:g} {z:g} 1.0' for x, y, z in POINTS] + ['vt 0 0', 'vn 0 0 1', 'mtllib none.mtl']
    for name, faces in SOLIDS.items():
        lines += [f'{key} {name}', 'usemtl missing', 's off']
        lines += ['f ' + ' '.join(f'{faces_of(k)}/1/1' for k in f) for f in faces]
    return '\n'.join(lines).encode()


def obj_negative():
    "Each body's vertices before its faces, which count backwards"
    lines = []
    for name, faces in SOLIDS.items():
        used = sorted({k for f in faces for k in f})
        lines += [f'o {name}'] + [f'v {x:g} {y:g} {z:g}' for x, y, z in POINTS[used]]
        lines += ['f ' + ' '.join(str(used.index(k) - len(used)) for k in f) for f in faces]
    return '\r\n'.join(lines).encode()


def ply(order, faces):
    head = f'ply\nformat {order} 1.0\nelement face {len(faces)}\nproperty list uint8 uint32 vertex_index\n' \
           f'element vertex {len(POINTS)}\nproperty double z\nproperty double x\nproperty double y\nend_header\n' # An odd order
    if order == 'ascii':
        return (head + '\n'.join([f"{len(f)} {' '.join(map(str, f))}" for f in faces] + [f'{z} {x} {y}' for x, y, z in POINTS])).encode()
    e = '<' if 'little' in order else '>'
    rows = [bytes([len(f)]) + np.array(f, e + 'u4').tobytes() for f in faces]
    return head.encode() + b''.join(rows) + POINTS[:, [2, 0, 1]].astype(e + 'f8').tobytes()


def stl_text():
    lines = []
    for name, faces in SOLIDS.items():
        lines.append(f'solid {name}')
        for f in triangles(faces):
            lines += ['facet normal 0 0 0', ' outer loop', *(f'  vertex {x:e} {y:e} {z:e}' for x, y, z in POINTS[f]), ' endloop', 'endfacet']
        lines.append(f'endsolid {name}')
    return '\n'.join(lines).encode()


def stl_binary():
    corners = POINTS[triangles(U_FACES + CUBE_FACES)]
    rows = np.zeros(len(corners), np.dtype([('n', '<f4', 3), ('c', '<f4', (3, 3)), ('a', '<u2')])); rows['c'] = corners
    return b'solid, though it is binary'.ljust(80) + struct.pack('<I', len(rows)) + rows.tobytes()


def glb(poses=None, names=('rim', 'body')):
    "Y up as the format says: each body below a node that is turned, scaled or mirrored, its mesh the other way round"
    scene, turned = trimesh.Scene(), np.linalg.inv(Y_UP)
    for k, (name, faces) in enumerate(zip(names, SOLIDS.values())):
        pose = np.eye(4) if poses is None else poses[k]
        mesh = trimesh.Trimesh(POINTS, triangles(faces), process=False).apply_transform(np.linalg.inv(pose)@turned)
        mesh.remove_unreferenced_vertices()
        scene.graph.update(f'{name} holder', matrix=pose); scene.add_geometry(mesh, name, name, f'{name} holder')
    return scene.export(file_type='glb')


MIRROR = np.diag([-2., 1, 1, 1])
TURN = trimesh.transformations.rotation_matrix(1., [1, 2, 3], [4, 5, 6])
FILES = {'plain.obj': obj(), 'negative.obj': obj_negative(), 'groups.obj': obj(key='g'), 'split.obj': obj().replace(b'/1/1 ', b' \\\n'),
         'text.ply': ply('ascii', U_FACES + CUBE_FACES), 'little.ply': ply('binary_little_endian', U_FACES + CUBE_FACES),
         'big.ply': ply('binary_big_endian', U_FACES + CUBE_FACES), 'text.stl': stl_text(), 'binary.stl': stl_binary(),
         'plain.glb': glb(), 'posed.glb': glb([TURN@np.diag([.5, 2, 3, 1]), TURN@MIRROR])}


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    "A file of every format"
    folder = tmp_path_factory.mktemp('models')
    for name, data in FILES.items(): (folder/name).write_bytes(data)
    return folder


@pytest.mark.parametrize('name', FILES)
def test_box_area_volume_and_bodies_are_known(models, name):
    whole, bodies = load_part(models/name, .001), load_bodies(models/name, .001)
    assert np.allclose(size(whole), [.05, .02, .03], atol=1e-8) and is_watertight(whole)
    assert np.isclose(volume(whole), 4480e-9, rtol=1e-5) and np.isclose(area(whole), sum(t['area'] for t in TRUTH.values())*1e-6, rtol=1e-5)
    named = not name.endswith('.ply') and name != 'binary.stl'
    bodies = {body.rpartition('/')[2]: part for body, part in bodies.items()} # After the node above it
    assert list(bodies) == (['rim', 'body'] if named else [name.partition('.')[0]])
    for body, truth in TRUTH.items():
        if not named: continue
        part = bodies[body]
        assert np.allclose(size(part), np.array(truth['size'])*.001, atol=1e-8), (name, body)
        assert np.isclose(volume(part), truth['volume']*1e-9, rtol=1e-5) and np.isclose(area(part), truth['area']*1e-6, rtol=1e-5)


BLENDER = """
import bpy, json, sys
import numpy as np
found = {}
for path in sys.argv[1:]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if path.endswith('.obj'): bpy.ops.wm.obj_import(filepath=path, forward_axis='Y', up_axis='Z')
    elif path.endswith('.ply'): bpy.ops.wm.ply_import(filepath=path)
    elif path.endswith('.stl'): bpy.ops.wm.stl_import(filepath=path)
    else: bpy.ops.import_scene.gltf(filepath=path)
    bpy.context.view_layer.update()
    a, v, points, bodies = 0., 0., [], 0
    for o in (o for o in bpy.context.scene.objects if o.type == 'MESH'):
        mesh = o.to_mesh(); mesh.transform(o.matrix_world); mesh.calc_loop_triangles(); bodies += 1
        if o.matrix_world.is_negative: mesh.flip_normals(); mesh.calc_loop_triangles()
        p = np.array([v.co for v in mesh.vertices]); t = p[np.array([t.vertices for t in mesh.loop_triangles])]; points.append(p)
        c = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
        a += np.linalg.norm(c, axis=1).sum()/2; v += (t[:, 0]*c).sum()/6
    p = np.concatenate(points)
    found[path] = dict(low=p.min(0).tolist(), high=p.max(0).tolist(), area=float(a), volume=float(v), bodies=bodies)
print('FOUND ' + json.dumps(found))
"""


@pytest.mark.slow
def test_blenders_importers_read_the_same(models):
    odd = {'split.obj': 'a face over two lines', 'text.ply': 'faces before vertices', 'little.ply': 'the same', 'big.ply': 'the same'}
    paths = [str(models/name) for name in FILES if name not in odd]
    done = subprocess.run([sys.executable, '-c', BLENDER, *paths], capture_output=True, text=True)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('FOUND '))[6:])
    for path in paths:
        part, theirs = load_part(path), found[path]
        assert np.allclose([part.vertices.min(0), part.vertices.max(0)], [theirs['low'], theirs['high']], atol=1e-4), path
        assert np.isclose(area(part), theirs['area'], rtol=1e-5) and np.isclose(volume(part), theirs['volume'], rtol=1e-5), path
        assert theirs['bodies'] in (len(load_bodies(path)), 1), path


@pytest.mark.parametrize('name', [name for name in FILES if name.endswith(('.glb', '.stl'))]) # What trimesh reads as it is defined
def test_trimesh_reads_the_same(models, name):
    theirs = trimesh.load(models/name, process=False).to_mesh() if name.endswith('.glb') else trimesh.load(models/name, force='mesh')
    if name.endswith('.glb'): theirs.apply_transform(Y_UP)
    part = load_part(models/name)
    assert np.allclose([part.vertices.min(0), part.vertices.max(0)], theirs.bounds, atol=1e-4)
    assert np.isclose(area(part), theirs.area) and np.isclose(volume(part), theirs.volume)


def test_real_cad():
    if not (data := os.environ.get('INSPECT_LIB_TEST_DATA')): pytest.skip('real models are named by INSPECT_LIB_TEST_DATA, which is not set')
    paths = sorted((Path(data)/'cad').glob('*.obj'))
    assert paths
    for path in paths:
        part, theirs = load_part(path), trimesh.load(path, process=False, force='mesh')
        assert len(part.faces) == len(theirs.faces) and np.allclose(size(part), theirs.extents) and np.isclose(area(part), theirs.area)


# ---------------------------------------------------------------- random shapes

@st.composite
def polygons(draw):
    "A polygon around the origin, as a rule concave, that does not cross itself"
    n = draw(st.integers(3, 12))
    radii = draw(st.lists(st.floats(.1, 1), min_size=n, max_size=n))
    angles = 2*np.pi*(np.arange(n) + .8*np.array(draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))))/n
    return np.stack([radii*np.cos(angles), radii*np.sin(angles)], 1)


def shoelace(p): return float(np.sum(p[:, 0]*np.roll(p[:, 1], -1) - p[:, 1]*np.roll(p[:, 0], -1))/2)


def prism(p, height=.5):
    "Points, and the faces of a prism as lists"
    n = len(p)
    points = np.concatenate([np.c_[p, np.zeros(n)], np.c_[p, np.full(n, height)]])
    return points, [[*range(n)][::-1], [*range(n, 2*n)]] + [[k, (k + 1) % n, (k + 1) % n + n, k + n] for k in range(n)]


@settings(max_examples=60, deadline=None)
@given(polygons(), st.integers(0, 10**6), st.floats(1e-3, 1e3), st.booleans())
def test_prisms_of_any_outline_keep_volume_and_area(p, seed, scale, backwards):
    points, faces = prism(p)
    rng = np.random.default_rng(seed)
    pose = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    placed = scale*(points@pose.T + rng.uniform(-1, 1, 3))
    lines = [f'v {x!r} {y!r} {z!r}' for x, y, z in placed.tolist()]
    lines += ['f ' + ' '.join(str(k - len(placed) if backwards else k + 1) for k in f) for f in faces]
    (obj_body,) = read_obj('\n'.join(lines).encode()).values()
    head = f'ply\nformat binary_little_endian 1.0\nelement vertex {len(placed)}\nproperty double x\nproperty double y\n' \
           f'property double z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n'
    rows = b''.join(bytes([len(f)]) + np.array(f, '<i4').tobytes() for f in faces)
    (ply_body,) = read_ply(head.encode() + placed.astype('<f8').tobytes() + rows).values()
    edges = np.linalg.norm(p - np.roll(p, -1, 0), axis=1).sum()
    for body in (obj_body, ply_body):
        part = Part('prism', *body)
        assert np.isclose(volume(part), .5*shoelace(p)*scale**3, rtol=1e-6)
        assert np.isclose(area(part), (2*shoelace(p) + .5*edges)*scale**2, rtol=1e-6)
        assert is_watertight(part) and np.allclose(size(part), np.ptp(placed, axis=0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([-3., -1., .5, 2.]), st.sampled_from([-1., 1.]), st.booleans()),
                min_size=1, max_size=5))
def test_nodes_of_any_pose_keep_volume_and_place(nodes):
    "Nested, scaled, mirrored and shared: bodies stay outside out and where the poses put them"
    scene, wedge = trimesh.Scene(), trimesh.Trimesh([[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 1.]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    pose, parent, poses = np.eye(4), 'world', []
    for k, (seed, x, y, nested) in enumerate(nodes):
        rng = np.random.default_rng(seed)
        local = trimesh.transformations.random_rotation_matrix(rng.random(3))@np.diag([x, y, 1, 1])
        local[:3, 3] = rng.uniform(-1, 1, 3)
        pose = pose@local if nested else local
        scene.add_geometry(wedge, f'n{k}', 'wedge', parent if nested else 'world', local); parent = f'n{k}'
        poses.append(pose)
    bodies = read_glb(scene.export(file_type='glb'))
    assert len(bodies) == len(nodes)
    for body, pose in zip(sorted(bodies, key=lambda name: int(name.rpartition('n')[2])), poses):
        part, expected = Part(body, *bodies[body]), wedge.vertices@pose[:3, :3].T + pose[:3, 3]
        assert np.isclose(volume(part), abs(np.linalg.det(pose[:3, :3])), rtol=1e-4)
        assert np.allclose(np.sort(part.vertices, 0), np.sort(expected@Y_UP[:3, :3].T, 0), atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_is_one_sentence_or_a_shape(name, data):
    "Cut off or changed anywhere: never anything but a sentence"
    raw = bytearray(FILES[name])
    if data.draw(st.booleans()): raw = raw[:data.draw(st.integers(0, len(raw) - 1))]
    else: raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/name
        path.write_bytes(raw)
        try: assert len(load_part(path).faces)
        except UserError as error: assert name in str(error) and '\n' not in str(error)


# ---------------------------------------------------------------- bodies of a box

def crate(names):
    "A shell, a rim above it, and two things that stick out of it, as bodies of these names"
    boxes = [trimesh.creation.box([300, 200, 130]), trimesh.creation.box([310, 210, 20]), *(trimesh.creation.box([60, 60, 60]) for _ in '12')]
    for box, place in zip(boxes, ([0, 0, 65], [0, 0, 140], [-70, 0, 160], [70, 0, 160])): box.apply_translation(place)
    return dict(zip(names, boxes))


NAMES = ['shell', 'rim', 'content_1', 'content_2']


def step_of(bodies, one_product):
    "Bodies of plane triangles as a STEP file in millimetres: solids of one product, or a product each in an assembly"
    lines, n, solids, text = [], 100, [], lambda p: '(' + ','.join(f'{x:.6f}' for x in p) + ')'
    for name, mesh in bodies.items():
        first, faces = n, []
        for p in mesh.vertices: lines.append(f"#{n}=CARTESIAN_POINT('',{text(p)});"); n += 1
        for face, normal in zip(mesh.faces, mesh.face_normals):
            a, b = mesh.vertices[face[:2]]
            lines += [f"#{n}=POLY_LOOP('',({','.join(f'#{first + v}' for v in face)}));#{n + 1}=FACE_OUTER_BOUND('',#{n},.T.);",
                      f"#{n + 2}=DIRECTION('',{text(normal)});#{n + 3}=DIRECTION('',{text(b - a)});",
                      f"#{n + 4}=AXIS2_PLACEMENT_3D('',#{first + face[0]},#{n + 2},#{n + 3});#{n + 5}=PLANE('',#{n + 4});",
                      f"#{n + 6}=FACE_SURFACE('',(#{n + 1}),#{n + 5},.T.);"]
            faces.append(f'#{n + 6}'); n += 7
        lines.append(f"#{n}=CLOSED_SHELL('',({','.join(faces)}));#{n + 1}=FACETED_BREP('{name}',#{n});"); solids.append((name, n + 1)); n += 2
    if one_product:
        lines.append(f"#{n}=FACETED_BREP_SHAPE_REPRESENTATION('',({','.join(f'#{s}' for _, s in solids)}),#12);"
                     f'#{n + 1}=SHAPE_DEFINITION_REPRESENTATION(#7,#{n});')
    else:
        lines.append(f"#{n}=CARTESIAN_POINT('',(0.,0.,0.));#{n + 1}=AXIS2_PLACEMENT_3D('',#{n},$,$);#{n + 2}=SHAPE_REPRESENTATION('',(#{n + 1}),#12);"
                     f'#{n + 3}=SHAPE_DEFINITION_REPRESENTATION(#7,#{n + 2});')
        axis, whole, n = n + 1, n + 2, n + 4
        for k, (name, solid) in enumerate(solids):
            product, of, definition, shape, made = (n + j for j in range(5))
            lines.append(f"#{product}=PRODUCT('{name}','{name}','',(#2));#{of}=PRODUCT_DEFINITION_FORMATION('','',#{product});"
                         f"#{definition}=PRODUCT_DEFINITION('','',#{of},#5);#{shape}=PRODUCT_DEFINITION_SHAPE('','',#{definition});"
                         f"#{made}=FACETED_BREP_SHAPE_REPRESENTATION('',(#{axis},#{solid}),#12);#{n + 5}=SHAPE_DEFINITION_REPRESENTATION(#{shape},#{made});"
                         f"#{n + 6}=NEXT_ASSEMBLY_USAGE_OCCURRENCE('{k}','{name if k % 2 else f'NAUO{k}'}','',#6,#{definition},$);"
                         f"#{n + 7}=PRODUCT_DEFINITION_SHAPE('','',#{n + 6});#{n + 8}=ITEM_DEFINED_TRANSFORMATION('','',#{axis},#{axis});"
                         f"#{n + 9}=(REPRESENTATION_RELATIONSHIP('','',#{made},#{whole})REPRESENTATION_RELATIONSHIP_WITH_TRANSFORMATION(#{n + 8})"
                         f"SHAPE_REPRESENTATION_RELATIONSHIP());#{n + 10}=CONTEXT_DEPENDENT_SHAPE_REPRESENTATION(#{n + 9},#{n + 7});")
            n += 11
    head = """ISO-10303-21;
HEADER;FILE_DESCRIPTION((''),'2;1');FILE_NAME('','',(''),(''),'','','');FILE_SCHEMA(('AUTOMOTIVE_DESIGN'));ENDSEC;
DATA;
#1=APPLICATION_CONTEXT('');#2=PRODUCT_CONTEXT('',#1,'mechanical');#3=PRODUCT('crate','crate','',(#2));
#4=PRODUCT_DEFINITION_FORMATION('','',#3);#5=PRODUCT_DEFINITION_CONTEXT('part definition',#1,'design');
#6=PRODUCT_DEFINITION('','',#4,#5);#7=PRODUCT_DEFINITION_SHAPE('','',#6);
#8=(LENGTH_UNIT()NAMED_UNIT(*)SI_UNIT(.MILLI.,.METRE.));#9=(NAMED_UNIT(*)PLANE_ANGLE_UNIT()SI_UNIT($,.RADIAN.));
#10=(NAMED_UNIT(*)SI_UNIT($,.STERADIAN.)SOLID_ANGLE_UNIT());
#12=(GEOMETRIC_REPRESENTATION_CONTEXT(3)GLOBAL_UNIT_ASSIGNED_CONTEXT((#8,#9,#10))REPRESENTATION_CONTEXT('',''));
"""
    return (head + '\n'.join(lines) + '\nENDSEC;\nEND-ISO-10303-21;\n').encode()


@pytest.mark.parametrize('one_product', [True, False])
def test_step_keeps_the_names_of_its_bodies(one_product):
    bodies = read_step(step_of(crate(NAMES), one_product))
    assert list(bodies) == NAMES
    for name, mesh in crate(NAMES).items():
        part = Part(name, *bodies[name])
        assert np.allclose([part.vertices.min(0), part.vertices.max(0)], mesh.bounds*.001, atol=1e-6) and np.isclose(volume(part), mesh.volume*1e-9)


@pytest.fixture
def home(workspace, monkeypatch):
    monkeypatch.setenv('INSPECT_LIB_ROOT', str(workspace))
    return workspace


def test_contents_are_never_rims(home):
    "The same crate from every format that has names, and refused where they say nothing"
    (home/'data'/'boxes').mkdir(parents=True)
    place = home/'data'/'boxes'
    (place/'solids.step').write_bytes(step_of(crate(NAMES), True)); (place/'assembly.step').write_bytes(step_of(crate(NAMES), False))
    scene = trimesh.Scene({name: mesh.apply_transform(np.linalg.inv(Y_UP)) for name, mesh in crate(NAMES).items()})
    (place/'crate.glb').write_bytes(scene.export(file_type='glb'))
    nested = trimesh.Scene()
    for node in ('crate', 'contents'): nested.graph.update(node, 'world' if node == 'crate' else 'crate', matrix=np.eye(4))
    for name, mesh in crate(['shell', 'Rim', 'bolt', 'nut']).items():
        nested.add_geometry(mesh.apply_transform(np.linalg.inv(Y_UP)), name, name, 'contents' if name in ('bolt', 'nut') else 'crate')
    (place/'nested.glb').write_bytes(nested.export(file_type='glb'))
    lines, start = [], 1
    for name, mesh in crate(NAMES).items():
        lines += [f'g {name}'] + [f'v {x} {y} {z}' for x, y, z in mesh.vertices] + [f'f {a + start} {b + start} {c + start}' for a, b, c in mesh.faces]
        start += len(mesh.vertices)
    (place/'groups.obj').write_text('\n'.join(lines))
    for name in ('solids.step', 'assembly.step', 'crate.glb', 'nested.glb', 'groups.obj'):
        box = load_box(place/name, 1. if name.endswith('.step') else .001)
        assert len(box.contents) == 2 and np.allclose(size(box.rim), [.31, .21, .02], atol=1e-6), name
        assert np.isclose(volume(box.body), 300*200*130e-9) and np.isclose(volume(box.rim), 310*210*20e-9), name
    for names, why in ((['Wanne', 'Rand', 'Lampe', 'Lampe 2'], '4 bodies .* none is called rim or content'),
                       (['primary', 'rim', 'content', 'content 2'], "'primary' may be a rim")):
        (place/'odd.step').write_bytes(step_of(crate(names), True))
        with pytest.raises(UserError, match=f'odd.step.* {why}' if 'may' not in why else why): load_box(place/'odd.step')


BLEND = """import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
add = lambda name, place, scale: (bpy.ops.mesh.primitive_cube_add(size=.1, location=place, scale=scale), setattr(bpy.context.object, 'name', name))
add('shell', (0, 0, 0), (1, 1, 1)); add('mirrored', (.3, 0, 0), (1, 1, 1)); bpy.context.object.scale = (-1, 2, 1); add('cutter', (9, 9, 9), (1, 1, 1))
bpy.context.object.hide_render = True
add('bolt', (0, 0, 0), (.5, .5, .5))
bolt, held = bpy.context.object, bpy.data.collections.new('held')
bpy.context.scene.collection.objects.unlink(bolt); held.objects.link(bolt)
empty = bpy.data.objects.new('contents', None); empty.instance_type = 'COLLECTION'; empty.instance_collection = held
empty.location = (0, .5, 0); bpy.context.scene.collection.objects.link(empty)
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[1])
"""


def test_a_blend_file_is_read_as_it_would_be_rendered(home, tmp_path):
    subprocess.run([sys.executable, '-c', BLEND, str(tmp_path/'scene.blend')], check=True, capture_output=True)
    bodies = load_bodies(tmp_path/'scene.blend')
    assert {name: np.round(size(p), 6).tolist() for name, p in bodies.items()} == \
        {'shell': [.1]*3, 'mirrored': [.1, .2, .1], 'contents/bolt': [.05]*3}
    assert np.isclose(volume(bodies['mirrored']), .002) and np.isclose(bodies['contents/bolt'].vertices[:, 1].mean(), .5)


# ---------------------------------------------------------------- what is not read is said

@pytest.mark.parametrize('name, data, why', [
    ('a.obj', 'v 0 0 0\n'.encode('utf-16'), 'UTF-16'), ('a.obj', b'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n', 'line 4: vertex 4 of 3'),
    ('a.obj', b'v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 -3 -2\n', 'line 4: a face reaches back'), ('a.obj', b'v 0,1 0 0\n', 'line 1: three coord'),
    ('a.stl', stl_binary() + b'x', 'has 2084 bytes, not 2085'), ('a.stl', stl_text()[:-12], 'endsolid'),
    ('a.ply', b'ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nelement tristrips 0\nend_header\n', 'tristrips'),
    ('a.glb', FILES['plain.glb'][:-8], 'bytes is expected')])
def test_what_is_wrong_is_named(tmp_path, name, data, why):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(UserError) as error: load_part(tmp_path/name)
    assert why in str(error.value) and name in str(error.value) and '\n' not in str(error.value)


def test_solids_named_like_keywords():
    text = stl_text().replace(b'solid rim', b'solid solid facet vertex').decode()
    assert list(read_stl(text.encode())) == ['solid facet vertex', 'body']
