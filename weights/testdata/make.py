"""Makes the checkpoints in this folder with PyTorch, and expected.json: per file the
names, shapes and values (as float32) that a reader must find, or the words that
its error must hold. Run it in this folder: python3 make.py. It was run with PyTorch 1.13.
"""
import argparse
import collections
import json
import os
import pickle

import torch

torch.manual_seed(1)
expected = {}


def flat(t):
    # 9 digits give back every float32; JSON has no infinities.
    return [v if abs(v) < float('inf') else str(v) for v in t.detach().float().flatten().tolist()]


def expect(file, tensors, rename=lambda n: n):
    expected[file] = {'tensors': [
        {'name': rename(n), 'shape': list(t.shape), 'values': flat(t)} for n, t in tensors.items()]}


def refuse(file, *words):
    expected[file] = {'error': list(words)}


def both(name, obj, tensors, rename=lambda n: n, protocol=2):
    """In the zip format and in the older one."""
    for kind, zipped in (('zip', True), ('legacy', False)):
        file = '%s_%s.pt' % (name, kind)
        torch.save(obj, file, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        expect(file, tensors, rename)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(3)
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


net = Net()
state = net.state_dict()

both('plain', state, state)
both('protocol4', state, state, protocol=4)
both('protocol5', state, state, protocol=5)

# As training scripts save: epoch and accuracy, optimizers with tensors of their own, before the weights.
adam = torch.optim.Adam(net.parameters())
net(torch.randn(4, 2, 5, 5)).sum().backward()
adam.step()
sgd = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
sgd.step()
parallel = torch.nn.DataParallel(net)
both('training', {
    'epoch': 7, 'best_prec1': torch.tensor(91.5), 'lr': 1e-3, 'arch': 'net', 'none': None, 'flag': True,
    'big': 1 << 80, 'negative': -3, 'history': [1, 2.5, 'x', (1, 2, 3, 4)], 'seen': {1, 2}, 'raw': b'\x00\xff',
    'optimizer': adam.state_dict(), 'optim_sgd': sgd.state_dict(),
    'rng': torch.get_rng_state()[:4],
    'counts': collections.defaultdict(int, a=1), 'counter': collections.Counter('aab'),
    'size': torch.Size([1, 2]), 'dtype': torch.float16, 'device': torch.device('cpu'),
    'state_dict': parallel.state_dict(),
}, state)
both('unknown_key', {'optimizer': adam.state_dict(), 'epoch': 1, 'my_weights': state}, state)
both('deep', {'model': {'state_dict': {'module.model.' + n: t for n, t in state.items()}}}, state)
both('parameters', dict(net.named_parameters()), dict(net.named_parameters()))

averaged = torch.optim.swa_utils.AveragedModel(net)
both('averaged', averaged.state_dict(), state)

# Views: transposed, sliced, every other column, a scalar out of the middle, expanded, empty, shared.
base = torch.arange(24.).reshape(4, 6)
views = {
    'base': base, 't': base.t(), 'slice': base[1:3, 2:5], 'every_other': base[:, ::2], 'column': base[:, 3],
    'scalar': base[2, 2], 'permuted': torch.arange(24.).reshape(2, 3, 4).permute(2, 0, 1),
    'expanded': torch.tensor([[1.], [2.]]).expand(2, 3), 'empty': torch.zeros(0, 3),
    'channels_last': torch.arange(48.).reshape(2, 4, 2, 3).contiguous(memory_format=torch.channels_last),
    'tied': base,
}
both('views', views, views)

values = [0, 1, -1, 2.5, -100.25, 65504, 6e-8]
dtypes = {str(d).split('.')[1]: torch.tensor(values, dtype=torch.float64).to(d)
          for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
dtypes['special'] = torch.tensor([float('inf'), -float('inf'), -0.0, 3.0517578125e-05, 6.103515625e-05], dtype=torch.float16)
dtypes['float64_rounded'] = torch.tensor([1 / 3, 1e300, 16777217], dtype=torch.float64)
for d in (torch.int8, torch.int16, torch.int32, torch.int64):
    dtypes[str(d).split('.')[1]] = torch.tensor([0, 1, -1, torch.iinfo(d).max, torch.iinfo(d).min], dtype=d)
dtypes['uint8'] = torch.tensor([0, 255], dtype=torch.uint8)
dtypes['bool'] = torch.tensor([True, False])
both('dtypes', dtypes, dtypes)

attributed = torch.arange(3.)
attributed.note = 'hello'
both('attributed', {'a': attributed, 'b': torch.ones(1)}, {'a': attributed, 'b': torch.ones(1)})

for p in (2, 4):
    file = 'pickled_%d.pkl' % p
    with open(file, 'wb') as f:
        pickle.dump(dict(state), f, protocol=p)
    expect(file, state)


# What must be refused, by name.
class Evil:
    def __reduce__(self):
        return os.system, ('echo pwned > /tmp/pwned',)


def both_refused(name, obj, *words):
    for kind, zipped in (('zip', True), ('legacy', False)):
        file = '%s_%s.pt' % (name, kind)
        torch.save(obj, file, _use_new_zipfile_serialization=zipped)
        refuse(file, *words)


both_refused('evil', {'state_dict': state, 'x': Evil()}, 'posix.system', 'refused')
both_refused('namespace', {'state_dict': state, 'args': argparse.Namespace(lr=1)}, 'argparse.Namespace', 'refused')
both_refused('module', net.fc, 'torch.nn.modules.linear.Linear', 'refused')
both_refused('tensor', torch.ones(2), 'holds a tensor')
both_refused('nothing', {'epoch': 1, 'optimizer': adam.state_dict()}, 'no mapping of names to tensors', '"epoch"', '"optimizer"')
both_refused('complex', {'a': torch.ones(2, dtype=torch.complex64)}, 'torch.ComplexFloatStorage', 'refused')
both_refused('quantized', {'a': torch.quantize_per_tensor(torch.ones(2), .1, 0, torch.qint8)}, 'refused')
both_refused('sparse', {'a': torch.eye(2).to_sparse()}, 'torch._utils._rebuild_sparse_tensor', 'refused')
with open('evil.pkl', 'wb') as f:
    pickle.dump(Evil(), f, protocol=4)
refuse('evil.pkl', 'posix.system', 'refused')
torch.jit.script(torch.nn.Linear(1, 1)).save('script.pt')
refuse('script.pt', '__torch__', 'refused')

with open('expected.json', 'w') as f:
    f.write('{\n' + ',\n'.join(json.dumps(k) + ': ' + json.dumps(v) for k, v in expected.items()) + '\n}\n')
