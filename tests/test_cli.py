"The command line as people and scripts use it, called in this process wherever that shows the same."
import os
import stat

import pytest
import torch

from inspect_lib.core.file import write_json
from inspect_lib.net.weights import save_model, write_state


@pytest.mark.parametrize(('mask', 'rights'), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path, mask, rights):
    before = os.umask(mask)
    try:
        save_model(tmp_path/'model.safetensors', torch.nn.Linear(2, 1), {})
        write_state(tmp_path/'state.safetensors', dict(w=torch.zeros(3)))
        write_json(tmp_path/'run.json', {})
    finally: os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {rights}
