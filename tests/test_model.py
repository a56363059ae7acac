"""Every architecture goes through the same trials: seeds, pictures of any kind, saving, devices, training, export, inspection."""
import ast
import importlib
import json
import pkgutil
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import inspect_lib.model
from conftest import ROOT
from inspect_lib.core.error import UserError
from inspect_lib.core.file import file_hash, read_json, write_json
from inspect_lib.data.label import UNKNOWN
from inspect_lib.deploy.exported import Exported, export_model, open_scorer
from inspect_lib.explain.method import ExplainConfig, make_explainer
from inspect_lib.explain.target import MethodModule
from inspect_lib.model.check import CHECKS, alike, check_device, check_training, missing_parts, some_images
from inspect_lib.model.contract import CARD, NAME, Model
from inspect_lib.model.registry import ARCHITECTURES, load_model
from inspect_lib.net.device import to_tensor
from inspect_lib.net.weights import card_digest
from inspect_lib.net.zoo import KINDS, zoo

KINDS_OF_MODELS = [kind for kind in ARCHITECTURES.values() if not missing_parts(kind)] # What lacks a part is told so once
TRAINED = [kind for kind in KINDS_OF_MODELS if kind.learns == 'weights']
JUDGING = [kind for kind in KINDS_OF_MODELS if kind.logit is not Model.logit]
name_of = lambda kind: getattr(kind, 'architecture', kind)


@pytest.mark.parametrize('kind', ARCHITECTURES.values(), ids=name_of)
def test_no_part_of_the_contract_is_missing(kind): assert missing_parts(kind) == []


def architectures(kind=Model) -> list[type[Model]]:
    "Every class below a model that names an architecture of its own"
    return [k for below in kind.__subclasses__() for k in ([below] if below.__dict__.get('architecture') else []) + architectures(below)]


@pytest.mark.parametrize('module', [m.name for m in pkgutil.iter_modules(inspect_lib.model.__path__)])
def test_every_architecture_has_its_entry(module):
    importlib.import_module(f'inspect_lib.model.{module}')
    unlisted = [k.__name__ for k in architectures() if k.__module__ == f'inspect_lib.model.{module}' and ARCHITECTURES.get(k.architecture) is not k]
    assert not unlisted, f'{unlisted} of model.{module} have no entry in ARCHITECTURES of nbs/model/07_registry.ipynb.'


def test_models_that_judge(): assert {'siamese', 'patchcore', 'similarity', 'faster-rcnn', 'retinanet'} <= {kind.architecture for kind in JUDGING}


@pytest.mark.parametrize('check', CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize('kind', KINDS_OF_MODELS, ids=name_of)
def test_architecture(kind, check): check(kind)


@pytest.mark.parametrize('kind', TRAINED, ids=name_of)
def test_training_reaches_every_weight(kind): check_training(kind)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('kind', KINDS_OF_MODELS, ids=name_of)
def test_on_a_gpu(kind): check_device(kind, 'cuda')


@pytest.mark.parametrize('kind', KINDS_OF_MODELS, ids=name_of)
def test_exported_it_says_the_same(kind, tmp_path):
    model, images = kind.example(), some_images()
    model.card['score_threshold'] = .05
    other = Exported(export_model(model, tmp_path/'model.onnx'))
    if kind.architecture == 'pix2pix': # Its own pictures have noise; the exported ones have none
        x = to_tensor(np.stack([np.full((64, 64, 3), 200, np.uint8)]), 'cpu')
        with torch.no_grad(): direct = model.outputs_of(x)['image'].numpy()
        assert np.abs(other.run(np.full((1, 64, 64, 3), 200, np.uint8))['image'] - direct).max() < 1e-4
    elif model.batched: assert alike(model.predict(images), other.predict(images), 1e-3)
    else:
        for a, b in zip(model.predict(images).pred_boxes, other.predict(images).pred_boxes):
            assert len(a.label) == len(b.label) and np.abs(a.score - b.score).max(initial=0) < 1e-3


@pytest.mark.parametrize('kind', JUDGING, ids=name_of)
def test_any_model_that_judges_inspects_and_is_explained(kind, tmp_path):
    model = kind.example()
    model.card['good'] = ['dark']
    model.save(tmp_path)
    scores = open_scorer(tmp_path)(some_images())
    assert scores.shape == (4,) and ((scores >= 0) & (scores <= 1) | np.isnan(scores)).all()
    again = load_model(tmp_path)
    x = to_tensor(np.stack([np.random.default_rng(0).integers(0, 256, (again.side, again.side, 3), dtype=np.uint8)]), 'cpu')[0]
    method = make_explainer('occlusion', ExplainConfig(window=again.side//2))
    found = method(MethodModule(again, 'logit'), x, lambda logit: logit.flatten())
    assert found.map.shape == (again.side, again.side) and np.isfinite(found.map).all()


def known_pictures() -> list[np.ndarray]:
    "Plates of one kind, bright and dark, as the examples are made from"
    rng = np.random.default_rng(5)
    return [np.clip(rng.normal(60 + 60*(i % 2), 9, (64, 64, 1)), 0, 255).astype(np.uint8).repeat(3, 2) for i in range(24)]


def aliens() -> dict[str, np.ndarray]:
    "What no line shows"
    flat, ramp = (lambda *c: np.full((48, 64, 3), c, np.uint8)), np.linspace(0, 255, 64).astype(np.uint8)
    return dict(black=flat(0), white=flat(255), grey=flat(128), red=flat(200, 0, 0), ramp=np.tile(ramp[None, :, None], (48, 1, 3)),
                noise=np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8), stripes=np.tile((ramp > 128)[None, :, None]*np.uint8(255), (48, 1, 3)))


@pytest.mark.parametrize('kind', JUDGING, ids=name_of)
def test_what_is_unlike_everything_known_is_withheld_in_every_form(kind, tmp_path):
    model, pictures = kind.example(), known_pictures()
    model.card['good'] = ['dark']
    model.learn_novelty(pictures)
    model.save(tmp_path)
    exported = [export_model(load_model(tmp_path), tmp_path/'model.onnx')] if model.batched else []
    for form in (tmp_path, *exported):
        scorer = open_scorer(form)
        assert not np.isnan(scorer(pictures[:4])).any() or kind.architecture == 'siamese', form
        assert np.isnan(scorer(list(aliens().values()))).all(), (form, scorer(list(aliens().values())))
    said = load_model(tmp_path).predict([*aliens().values(), pictures[0]])
    assert said.in_distribution.tolist() == [False]*len(aliens()) + [True]
    if said.pred_label is not None: assert (said.pred_label[:-1] == UNKNOWN).all() and (said.pred_score[:-1] == .5).all()


SPOILED = dict(nan=lambda t: t*float('nan'), infinite=lambda t: t + float('inf'), int8=lambda t: t.to(torch.int8), bool=lambda t: t > 0,
               complex=lambda t: t.to(torch.complex64), shape=lambda t: t[None], missing=None, extra=None)


@pytest.mark.parametrize('spoil', SPOILED)
@pytest.mark.parametrize('name', sorted(ARCHITECTURES))
def test_weights_that_no_training_ends_with_are_refused_by_name(folders, name, spoil, tmp_path):
    shutil.copytree(folders[name], tmp_path/'model')
    path = tmp_path/'model'/NAME
    tensors = load_file(path)
    floats = [key for key, t in tensors.items() if t.is_floating_point() and t.numel()]
    if not tensors and spoil != 'extra': pytest.skip('nothing of its own is saved')
    target = 'extra.weight' if spoil == 'extra' else (floats or list(tensors))[0]
    if spoil == 'missing': del tensors[target]
    else: tensors[target] = torch.zeros(3) if spoil == 'extra' else SPOILED[spoil](tensors[target].float()).contiguous()
    save_file(tensors, path)
    card = read_json(tmp_path/'model'/'model.json') | dict(sha256=file_hash(path))
    write_json(tmp_path/'model'/'model.json', card | dict(digest=card_digest(card)))
    with pytest.raises(UserError, match=re.escape(target)): load_model(tmp_path/'model')


@pytest.mark.parametrize('kind', [k for k in KINDS_OF_MODELS if k not in JUDGING], ids=name_of)
def test_what_gives_no_verdict_says_so(kind, tmp_path):
    model = kind.example()
    with pytest.raises(UserError, match='gives no verdict'): model.logit(torch.rand(1, 3, model.side, model.side))
    model.save(tmp_path)
    with pytest.raises(UserError, match='no label and no score'): open_scorer(tmp_path)(some_images())


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-10**6, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=4)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in ARCHITECTURES}
    for name, folder in made.items(): ARCHITECTURES[name].example().save(folder)
    return made


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(ARCHITECTURES)), data=st.data())
def test_a_card_that_says_something_else_is_refused_in_a_sentence(folders, name, data):
    "An entry of the configuration changed, and the digest made anew: a result, or a UserError, and nothing else"
    path = folders[name]/'model.json'
    whole = read_json(path)
    entry = data.draw(st.sampled_from([*whole['config'], 'unknown']))
    card = whole | dict(config=whole['config'] | {entry: data.draw(VALUES)})
    write_json(path, card | dict(digest=card_digest(card)))
    try: load_model(folders[name])
    except UserError as error: assert '\n' not in str(error).strip() or 'expected' in str(error)
    finally: write_json(path, whole)


def test_an_edited_card_and_a_card_of_another_time_are_refused(folders):
    path = folders['patchcore']/'model.json'
    whole = json.loads(path.read_text())
    for change, why in ((dict(threshold=0.), 'digest differs'), ({CARD: 2, 'digest': None}, 'digest differs')):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(UserError, match=why): load_model(folders['patchcore'])
    old = {key: value for key, value in whole.items() if key not in (CARD, 'digest')}
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match='train it again'): load_model(folders['patchcore'])
    path.write_text(json.dumps(whole))
    assert load_model(folders['patchcore']/NAME).config.threshold == .2


def test_one_list_of_names():
    "Every name of the zoo offers something, and what it offers can be told from what it does not"
    for name, network in zoo().items(): assert network.about and any(getattr(network, kind) for kind in KINDS), name


def test_nothing_that_feeds_a_network_has_a_device_of_its_own():
    "`device='cpu'` as a default is how a model on a GPU meets pictures on the CPU; only who opens a file may be asked where to run"
    found = set()
    for path in (ROOT/'inspect_lib').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef): continue
            arguments = [*node.args.args, *node.args.kwonlyargs]
            defaults = [None]*(len(node.args.args) - len(node.args.defaults)) + [*node.args.defaults, *node.args.kw_defaults]
            found |= {f'{path.stem}.{node.name}' for a, d in zip(arguments, defaults) if a.arg == 'device' and isinstance(d, ast.Constant) and d.value}
    assert found <= {'exported.open_scorer', 'check.check_device'}
