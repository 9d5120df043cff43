"""Adversarial training as the papers' repositories write it: plain PyTorch, NCHW, float32.

Written from their description, without anything of advkit: the net that all contenders train, the
usual step (`loss.backward()` in the attack) and the ADR authors' (`autograd.grad` on the images,
an EMA moved tensor by tensor).
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 10
TAU, TRUST, DECAY = 2.5, 0.7, 0.995


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet18(nn.Module):
    def __init__(self, classes, width, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            first = Block(inputs, outputs, 1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, Block(outputs, outputs, 1)))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))


class Step:
    """What both ways share: net, teacher, optimizer, ADR's labels, and the step around an attack.

    `bn` is eval or train: what the net's batch normalisation does during the attack.
    """

    def __init__(self, model, bn="eval"):
        self.model, self.bn = model.train(), bn
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    @torch.no_grad()
    def labels(self, x, y):
        p = F.softmax(self.teacher(x) / TAU, dim=1)
        true = p.gather(1, y[:, None])
        trust = (TRUST - (p.max(1, keepdim=True).values - true)).clamp(0, 1)
        return trust * p + (1 - trust) * F.one_hot(y, p.shape[1])

    def __call__(self, x, y, start):
        targets = self.labels(x, y)
        self.model.train(self.bn == "train")
        x_adv = self.attack(x, targets, start)
        self.model.train()
        loss = F.cross_entropy(self.model(x_adv), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average()
        return loss.item()

    @torch.no_grad()
    def average(self):
        theirs = self.model.state_dict()
        for name, mine in self.teacher.state_dict().items():
            if mine.is_floating_point():
                mine.copy_(DECAY * mine + (1 - DECAY) * theirs[name])

    def attack(self, x, targets, start):
        raise NotImplementedError


def moved(x_adv, gradient, x):
    x_adv = x_adv.detach() + ALPHA * gradient.sign()
    return torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)


class Usual(Step):
    """The gradient reaches every parameter at every step of the attack, and is thrown away."""

    def attack(self, x, targets, start):
        x_adv = start.clone()
        for _ in range(STEPS):
            x_adv.requires_grad_(True)
            self.model.zero_grad()
            F.cross_entropy(self.model(x_adv), targets).backward()
            x_adv = moved(x_adv, x_adv.grad, x)
        return x_adv


class Authors(Step):
    """The gradient is asked for the images alone, as in the code that ADR published."""

    def attack(self, x, targets, start):
        x_adv = start.clone()
        for _ in range(STEPS):
            x_adv.requires_grad_(True)
            loss = F.cross_entropy(self.model(x_adv), targets)
            (gradient,) = torch.autograd.grad(loss, [x_adv])
            x_adv = moved(x_adv, gradient, x)
        return x_adv
