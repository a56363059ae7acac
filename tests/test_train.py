"""Trainings that are killed, stopped, spoilt, and the files that they leave."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from inspect_lib.core.error import UserError
from inspect_lib.core.file import file_hash, write_json
from inspect_lib.net.checkpoint import BEST, HISTORY, STATE, TrainConfig
from inspect_lib.net.train import cosine, fit
from inspect_lib.net.watch import STATUS
from inspect_lib.net.weights import load_weights, save_model


def batches(epoch):
    rng = torch.Generator().manual_seed(epoch)
    for _ in range(4): yield dict(image=torch.randn(6, 3, 12, 12, generator=rng), gt_label=torch.arange(6) % 2)


def step(model, batch):
    return dict(loss=nn.functional.cross_entropy(model(batch['image']).float(), batch['gt_label']))


def validate(model):
    image = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return dict(spread=float(model(image).std()))


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Dropout(.3),
                         nn.Flatten(), nn.Linear(128, 2))


def train(folder, step=step, seed=0, batches=batches, validate=validate, **rules):
    "Five epochs of four steps, everything switched on"
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    rules = TrainConfig(5, **dict(monitor='spread', threads=1, ema_decay=.8, clip=1., channels_last=True, precision='fp32') | rules)
    return model, fit(model, batches, step, optimizer, rules, folder, cosine(optimizer, 20, 3), validate)


def content(folder) -> dict: return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def wait_for(path: Path, process: subprocess.Popen, seconds=120):
    "Until the file is there, or the process has failed"
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f'{path} did not come'
        time.sleep(.02)


def start(script: str, *args) -> subprocess.Popen:
    "Another process, with a process group of its own, that knows the functions of this file"
    env = os.environ | {'TQDM_DISABLE': '1', 'PYTHONPATH': str(Path(__file__).parent)}
    head = 'import sys, time, torch\nfrom pathlib import Path\nfrom test_train import step, train\n'
    return subprocess.Popen([sys.executable, '-c', head + script, *map(str, args)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def end(process: subprocess.Popen, seconds=120) -> str:
    "What it said; nothing of it stays behind"
    try: return process.communicate(timeout=seconds)[1]
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL); process.communicate()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch): monkeypatch.setenv('TQDM_DISABLE', '1')


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    "What a training leaves that nobody disturbs"
    os.environ['TQDM_DISABLE'] = '1'
    folder = tmp_path_factory.mktemp('undisturbed')
    train(folder)
    return content(folder)

# ---------------------------------------------------------------- killed and taken up

KILLED_IN_STEP = '''
count = []
def hang(model, batch):
    count.append(0)
    if len(count) == int(sys.argv[2]): Path(sys.argv[1] + '.there').touch(); time.sleep(1000)
    return step(model, batch)
train(sys.argv[1], hang)
'''

KILLED_WRITING = '''
count, replace = [], Path.replace
def hang(path, target):
    if Path(target).name == sys.argv[3]: count.append(0)
    if len(count) == int(sys.argv[2]): Path(sys.argv[1] + '.there').touch(); time.sleep(1000)
    return replace(path, target)
Path.replace = hang
train(sys.argv[1])
'''


@pytest.mark.parametrize('script, args', [(KILLED_IN_STEP, (11,)), (KILLED_WRITING, (3, STATE)),
                                          (KILLED_WRITING, (1, 'best.json')), (KILLED_WRITING, (2, HISTORY))],
                         ids=['in a step', 'before the state', 'between weights and card', 'after the state'])
def test_killed_and_taken_up_is_as_undisturbed(undisturbed, tmp_path, script, args):
    folder = tmp_path/'training'
    process = start(script, folder, *args)
    wait_for(tmp_path/'training.there', process)
    process.kill(); end(process)
    epochs = json.loads((folder/HISTORY).read_text())['epochs'] if (folder/HISTORY).exists() else []
    assert len(epochs) < 5
    for part in folder.glob('.*.part'): part.unlink() # What a kill while writing leaves
    _, history = train(folder)
    assert len(history['epochs']) == 5 and content(folder) == undisturbed


def noisy(epoch):
    "Batches that take from torch's own random numbers too"
    for batch in batches(epoch): torch.rand(3); yield batch


@pytest.mark.parametrize('rules', [dict(ema_decay=0., channels_last=False), dict(precision='bf16'), dict(batches=noisy)])
def test_stopped_at_every_step_is_as_undisturbed(tmp_path, rules):
    model, history = train(tmp_path/'a', **rules)
    def stopping(model, batch): (tmp_path/'b'/'STOP').touch(); return step(model, batch)
    for done in range(20):
        with pytest.raises(UserError, match=f'epoch {done//4 + 1} of 5.*the same command goes on'):
            train(tmp_path/'b', stopping, **rules)
        torch.rand(done) # What happens in between does not matter
    again, _ = train(tmp_path/'b', **rules)
    assert content(tmp_path/'a') == content(tmp_path/'b')
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))

# ---------------------------------------------------------------- asked to stop

SIGNALLED = '''
def wait(model, batch):
    if not Path(sys.argv[1] + '.there').exists():
        Path(sys.argv[1] + '.there').touch()
        while not Path(sys.argv[1] + '.sent').exists(): time.sleep(.01)
    return step(model, batch)
train(sys.argv[1], wait)
'''


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_so(undisturbed, tmp_path, how):
    folder = tmp_path/'training'
    process = start(SIGNALLED, folder)
    wait_for(tmp_path/'training.there', process)
    process.send_signal(how); (tmp_path/'training.sent').touch()
    said = end(process)
    assert process.returncode == 1
    assert f'Stopped by {how.name} in epoch 1 of 5' in said and 'the same command goes on from there' in said
    status = json.loads((folder/STATUS).read_text())
    assert (status['state'], status['epoch'], status['step']) == ('stopped', 0, 1) and how.name in status['reason']
    train(folder)
    assert content(folder) == undisturbed


LOADER = '''
class Pictures(torch.utils.data.Dataset):
    def __len__(self): return 12
    def __getitem__(self, i):
        while i == 5 and not Path(sys.argv[1] + '.sent').exists(): Path(sys.argv[1] + '.there').touch(); time.sleep(.01)
        return torch.full((3, 12, 12), i/12.), i % 2

def batches(epoch):
    rng = torch.Generator().manual_seed(epoch)
    return torch.utils.data.DataLoader(Pictures(), batch_size=3, num_workers=1, generator=rng)
train(sys.argv[1], lambda model, batch: step(model, dict(image=batch[0], gt_label=batch[1])), batches=batches)
'''


def test_ctrl_c_reaches_the_processes_of_a_loader_too(tmp_path):
    "As from a terminal; whatever they were doing, the steps that are done are saved, and the training goes on"
    folder = tmp_path/'training'
    process = start(LOADER, folder)
    wait_for(tmp_path/'training.there', process)
    os.killpg(process.pid, signal.SIGINT); (tmp_path/'training.sent').touch()
    said = end(process)
    assert process.returncode == 1 and 'Stopped by SIGINT in epoch 1 of 5' in said, said
    assert json.loads((folder/STATUS).read_text())['step'] < 4
    process = start(LOADER, folder)
    said = end(process, 300)
    assert process.returncode == 0 and len(json.loads((folder/HISTORY).read_text())['epochs']) == 5, said


def test_status_can_be_read_at_any_time(tmp_path):
    "It is whole whenever one looks, and holds times only while the training runs"
    seen = []
    def look(model, batch):
        if (tmp_path/STATUS).exists(): seen.append(json.loads((tmp_path/STATUS).read_text()))
        return step(model, batch)
    train(tmp_path, look)
    assert {status['epoch'] for status in seen} == {0, 1, 2, 3, 4}
    last = seen[-1]
    assert last['state'] == 'running' and last['eta_s'] > 0 and last['seconds_per_step'] > 0 and last['of'] == 5
    row = last['last']
    assert row['losses']['loss'] > 0 and 'spread' in row['validation'] and row['learning_rate'] > 0
    done = json.loads((tmp_path/STATUS).read_text())
    assert done['state'] == 'done' and not {'eta_s', 'updated', 'seconds_per_step'} & set(done)

# ---------------------------------------------------------------- spoilt

@pytest.mark.parametrize('poison, named', [('loss', 'loss is nan'), ('gradient', 'the gradient is nan'),
                                           ('validation', 'spread is inf')])
def test_what_is_not_finite_stops_and_keeps_the_last_good_model(tmp_path, poison, named):
    count = []
    def spoilt(model, batch):
        count.append(0); loss = step(model, batch)['loss']
        if len(count) == 14 and poison == 'loss': loss = loss*float('nan')
        if len(count) == 14 and poison == 'gradient': loss = loss + (model[0].weight*0).abs().sqrt().sum()
        return dict(loss=loss)
    judge = lambda model: dict(spread=float('inf')) if poison == 'validation' and len(count) == 16 else validate(model)
    with pytest.raises(UserError, match=f'stopped in epoch 4 .*: {named}; .* is kept.* lower learning rate') as error:
        train(tmp_path, spoilt, validate=judge, monitor='')
    assert 'of epoch 3, is kept' in str(error.value) and '\n' not in str(error.value)
    status = json.loads((tmp_path/STATUS).read_text())
    assert status['state'] == 'failed' and status['reason'] == str(error.value)
    assert len(json.loads((tmp_path/HISTORY).read_text())['epochs']) == 3
    card = load_weights(tmp_path/BEST, model := network())
    assert card['epoch'] == 3 and all(t.isfinite().all() for t in model.state_dict().values())

# ---------------------------------------------------------------- files of somebody else

def test_a_pickle_is_never_executed(tmp_path):
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/executed',)
    torch.save(dict(model=Evil()), tmp_path/STATE)
    with pytest.raises(UserError, match='remove it to begin anew'): train(tmp_path)
    (tmp_path/STATE).rename(tmp_path/'a.safetensors')
    write_json(tmp_path/'a.json', dict(sha256=file_hash(tmp_path/'a.safetensors')))
    with pytest.raises(UserError, match='no safetensors file'): load_weights(tmp_path/'a.safetensors', nn.Linear(2, 2))
    assert not (tmp_path/'executed').exists()


@pytest.mark.parametrize('damage, why', [
    (lambda data: data[:-1], 'remove it to begin anew'), (lambda data: b'', 'remove it to begin anew'),
    (lambda data: b'\xff'*8 + data[8:], 'remove it to begin anew')])
def test_a_damaged_state_is_one_sentence(tmp_path, damage, why):
    def stopping(model, batch): (tmp_path/'STOP').touch(); return step(model, batch)
    with pytest.raises(UserError): train(tmp_path, stopping)
    (tmp_path/STATE).write_bytes(damage((tmp_path/STATE).read_bytes()))
    with pytest.raises(UserError, match=why) as error: train(tmp_path)
    assert '\n' not in str(error.value)


def test_a_model_in_the_place_of_a_state(tmp_path):
    save_model(tmp_path/STATE, nn.Linear(2, 2), {})
    with pytest.raises(UserError, match='remove it to begin anew'): train(tmp_path)


def test_another_training_in_the_folder(undisturbed, tmp_path):
    for name, data in undisturbed.items(): (tmp_path/name).write_bytes(data)
    for other, key in ((dict(seed=1), 'first_weights'), (dict(clip=2.), 'clip')):
        with pytest.raises(UserError, match=f'begun otherwise \\({key} differ\\)'): train(tmp_path, **other)
    assert content(tmp_path) == undisturbed


@pytest.mark.parametrize('card', [None, '{', '[]', '{}', '{"sha256": 3}'])
def test_weights_without_a_good_card(tmp_path, card):
    save_model(tmp_path/'a.safetensors', nn.Linear(2, 2), {})
    (tmp_path/'a.json').unlink() if card is None else (tmp_path/'a.json').write_text(card)
    with pytest.raises(UserError): load_weights(tmp_path/'a.safetensors', nn.Linear(2, 2))


def test_another_architecture_leaves_the_model_alone(tmp_path):
    save_model(tmp_path/'a.safetensors', nn.Sequential(nn.Linear(2, 2)), {})
    for model in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))):
        before = [t.clone() for t in model.state_dict().values()]
        with pytest.raises(UserError, match='another architecture'): load_weights(tmp_path/'a.safetensors', model)
        assert all((a == b).all() for a, b in zip(before, model.state_dict().values()))
