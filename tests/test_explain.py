"""Explanations on the networks that are really used, and how much of them is in memory at once."""
import numpy as np
import pytest
import torch
from torch import nn

from inspect_lib.core.error import UserError
from inspect_lib.core.seed import generator
from inspect_lib.explain.background import choose_background, load_background, save_background
from inspect_lib.explain.method import METHODS, ExplainConfig, make_explainer
from inspect_lib.explain.planted import planted_network, planted_picture, planted_transformer
from inspect_lib.explain.shap import deep_shap
from inspect_lib.explain.target import MethodModule, prepare_model, class_logit, single_output
from inspect_lib.judge.attribution import Attribution
from inspect_lib.judge.evaluation import CONTROL, EvalConfig, Query, evaluate, on_same_pictures, random_maps, summarise
from inspect_lib.model.inspector import Inspector
from inspect_lib.model.siamese import new_siamese


def pictures(n, side):
    return torch.stack([planted_picture(generator(i, 'test'), side, red=i % 2 == 0)[0] for i in range(n)])


def inspector(backbone, distance='euclidean', side=32):
    "A Siamese network with six references; what it has learned is nothing"
    twins = new_siamese(backbone, 'own' if backbone == 'inspect-tiny' else '', 8, distance).eval()
    with torch.no_grad(): references = twins(pictures(6, side))
    return Inspector.around(twins, references, torch.tensor([True]*3 + [False]*3)).eval()


@pytest.mark.parametrize('distance', ['euclidean', 'weighted-l1'])
def test_deep_shap_adds_up_on_the_inspector(distance):
    network, images = inspector('inspect-tiny', distance), pictures(5, 32)
    explain = deep_shap(choose_background(images[1:], 4, generator(0)), chunk=2)
    for model in (network, MethodModule(network, 'logit')):
        found = explain(model, images[0], single_output)
        with torch.no_grad(): said = model(images).double()
        assert np.isclose(found.values.sum(dtype=float), float(said[0] - said[1:].mean()), rtol=1e-2, atol=1e-7)
        assert found.additivity < 1e-2 and found.adds_up


@pytest.mark.parametrize('model', [planted_network(), planted_transformer(), MethodModule(inspector('inspect-tiny'), 'logit')])
def test_what_is_explained_is_what_the_network_says(model):
    images = pictures(3, 32)
    with torch.no_grad(): assert torch.equal(prepare_model(model)(images), model(images))
    hooks = lambda: sum(len(part._forward_hooks) + len(part._backward_hooks) for part in model.modules())
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, hooks()
    for name in ('deep-shap', 'grad-cam', 'guided-grad-cam'):
        make_explainer(name, ExplainConfig(choose_background(images[1:], 2, generator(0))))(model, images[0], single_output)
    assert hooks() == before and all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_memory_is_bounded_by_the_chunk():
    class Counting(nn.Module):
        most = 0
        def forward(self, x): Counting.most = max(Counting.most, len(x)); return x.exp().mean((1, 2, 3))

    background = choose_background(pictures(23, 16), 23, generator(0))
    assert deep_shap(background, chunk=4)(Counting(), pictures(1, 16)[0], single_output).adds_up and Counting.most == 4


def test_a_network_that_takes_another_way_for_some_pictures_is_not_explained_silently():
    class Deciding(nn.Module):
        def forward(self, x): return (x.exp() if x.mean() > .55 else x.exp().sqrt()).mean((1, 2, 3))

    images = pictures(4, 16)
    with pytest.raises(UserError, match='cannot be compared'):
        deep_shap(choose_background(images, 4, generator(0)))(Deciding(), (images[0]/2 + .5), single_output)


def test_weights_that_are_not_finite_are_a_clear_error():
    network, images = planted_network(), pictures(3, 16)
    explain = deep_shap(choose_background(images[1:], 2, generator(0)))
    with torch.no_grad(): network.head.bias.fill_(float('nan'))
    with pytest.raises(UserError, match='only finite numbers'): explain(network, images[0], single_output)


def test_a_saved_background_gives_the_same_explanation(tmp_path):
    network, images = planted_network(), pictures(4, 32)
    background = choose_background(images, 20, generator(0), allow_fewer=True)
    save_background(tmp_path/'background.safetensors', background)
    again = load_background(tmp_path/'background.safetensors')
    found = [deep_shap(b)(network, images[0], single_output) for b in (background, again)]
    assert np.array_equal(found[0].values, found[1].values) and 'where 20 were requested' in found[1].sentence


def all_methods(model, target, side):
    images = pictures(4, side)
    means = ExplainConfig(choose_background(images[1:], 3, generator(0)), batch=4, channels=8, samples=8, evaluations=40)
    for name in METHODS:
        found = make_explainer(name, means)(model, images[0], target)
        assert found.map.shape == (side, side) and found.map.dtype == np.float32 and np.isfinite(found.map).all(), name
        if name in ('deep-shap', 'partition-shap'): assert found.adds_up, (name, found.additivity)
        if 'cam' not in name: assert found.map.any(), name


@pytest.mark.slow
def test_all_methods_on_the_resnet50_siamese():
    all_methods(MethodModule(inspector('resnet50', side=64), 'logit'), single_output, 64)


@pytest.mark.slow
def test_all_methods_on_dinov2(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    from inspect_lib.core.paths import Workspace
    from inspect_lib.net.zoo import load_backbone
    from inspect_lib.model.siamese import Siamese
    torch.manual_seed(0)
    small = Dinov2Config(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, patch_size=14, layerscale_value=1.)
    Dinov2Model(small).save_pretrained(tmp_path/'vit')
    offline = Workspace(root=tmp_path, data=(tmp_path,), params=tmp_path, reports=tmp_path, cache=tmp_path/'cache', workers=1, hub='')
    twins = Siamese(load_backbone('data/vit', ws=offline), 8).eval()
    with torch.no_grad(): references = twins(pictures(4, 56))
    all_methods(MethodModule(Inspector.around(twins, references, torch.tensor([True, True, False, False])).eval(), 'logit'), single_output, 56)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet50', 'densenet121', 'mobilenet_v3_small', 'efficientnet_b0', 'convnext_tiny', 'swin_t', 'vit_b_32'])
def test_deep_shap_adds_up_on_classifiers(name):
    import torchvision
    torch.manual_seed(0)
    model, side = torchvision.models.get_model(name, weights=None, num_classes=4).eval(), 224 if 'vit' in name else 64
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.out_features == 4: nn.init.normal_(part.weight)
    with torch.no_grad(): # Untrained statistics let some of these networks fade to nothing
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d): part.momentum = 1.
        model.train()(pictures(4, side)); model.eval()
    images = pictures(3, side)
    found = deep_shap(choose_background(images[1:], 2, generator(0)))(model, images[0], class_logit(1))
    assert found.additivity < 1e-2 and found.values.any(), found.additivity


def test_one_picture_that_cannot_be_explained_is_left_out_by_name_and_stops_nothing():
    rng = generator(0, 'queries')
    queries = [Query(rng.random((3, 16, 16), np.float32), None, str(i), f'{i}.png') for i in range(4)]
    black = Query(np.zeros((3, 16, 16), np.float32), None, 'b', 'black.png')
    def explain(image):
        if not image.any(): raise UserError('No layer of the network gives maps.')
        return Attribution(image.mean(0))
    score = lambda images: images.mean((1, 2, 3))
    results = [evaluate(name, how, [*queries, black], score, EvalConfig(steps=2), 0) for name, how in (('map', explain), (CONTROL, random_maps(0)))]
    assert [len(e.maps) for e in results] == [4, 5]
    same, remaining, left_out = on_same_pictures(results, [*queries, black])
    assert [len(e.maps) for e in same] == [4, 4] and remaining == queries and left_out == {'black.png': 'map: No layer of the network gives maps.'}
    assert summarise(same, 0)['map']['silent']['n'] == 4
    with pytest.raises(UserError, match='could explain none of 1 pictures; of black.png: No layer'): evaluate('map', explain, [black], score, EvalConfig(steps=2), 0)
