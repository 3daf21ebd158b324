"""Training speed of PyTorch's ResNet-18 for 32x32 images: seconds a step of SGD.

usage: peer.py [BATCH [STEPS [THREADS]]]
"""
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        cin, stages = 64, []
        for stage, cout in enumerate([64, 128, 256, 512]):
            stages.append(nn.Sequential(Block(cin, cout, 1 if stage == 0 else 2), Block(cout, cout, 1)))
            cin = cout
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def main():
    batch, steps, threads = [int(a) for a in sys.argv[1:]] + [128, 5, 0][len(sys.argv) - 1:]
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    for layout in (torch.contiguous_format, torch.channels_last):
        net = ResNet18().train().to(memory_format=layout)
        images = x.to(memory_format=layout)
        sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        times = []
        for step in range(steps + 1):
            start = time.perf_counter()
            sgd.zero_grad()
            F.cross_entropy(net(images), y).backward()
            sgd.step()
            times.append(time.perf_counter() - start)
        best = sorted(times[1:])
        print(f"PyTorch {torch.__version__} {layout}: {best[len(best) // 2]:.3f} s a step (median), {best[0]:.3f} (best)")


main()
