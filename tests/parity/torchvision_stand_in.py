"""What lpips and pytorch_fid ask of torchvision, in plain torch, for where its wheel does not fit.

`present` changes nothing where torchvision can be imported. Only structure is here: the layers and,
for the blocks that pytorch_fid leaves as they are, their order. Names are torchvision's: they are
those of the state dicts.
"""

import contextlib
import importlib
import sys
import types
import warnings

import torch
from torch import nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Convolution, BatchNorm with epsilon 1e-3, ReLU."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class InceptionA(nn.Module):
    def __init__(self, inputs, pool_features):
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48, 1), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pool_features, 1)


class InceptionB(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    def __init__(self, inputs, channels_7x7):
        super().__init__()
        width, row, column = channels_7x7, ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, width, 1)
        self.branch7x7_2, self.branch7x7_3 = Conv(width, width, *row), Conv(width, 192, *column)
        self.branch7x7dbl_1 = Conv(inputs, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, *column)
        self.branch7x7dbl_3 = Conv(width, width, *row)
        self.branch7x7dbl_4 = Conv(width, width, *column)
        self.branch7x7dbl_5 = Conv(width, 192, *row)
        self.branch_pool = Conv(inputs, 192, 1)


class InceptionD(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inputs, 192, 1), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(inputs, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x):
        wide = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), wide, F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        self.branch1x1, self.branch3x3_1 = Conv(inputs, 320, 1), Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, *row), Conv(384, 384, *column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448, 1), Conv(448, 384, 3, 1, 1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, *row), Conv(384, 384, *column)
        self.branch_pool = Conv(inputs, 192, 1)


def inception_v3(num_classes, **_):
    """The layers outside the blocks that pytorch_fid puts in itself."""
    net = nn.Module()
    net.Conv2d_1a_3x3, net.Conv2d_2a_3x3 = Conv(3, 32, 3, stride=2), Conv(32, 32, 3)
    net.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
    net.Conv2d_3b_1x1, net.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
    net.Mixed_6a, net.Mixed_7a = InceptionB(288), InceptionD(768)
    net.fc = nn.Linear(2048, num_classes)
    return net


def vgg16(**_):
    """VGG16's convolutions as torchvision numbers them."""
    layers, inputs = [], 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for width in stage:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    net = nn.Module()
    net.features = nn.Sequential(*layers)
    return net


@contextlib.contextmanager
def present():
    """Within it, `import torchvision` finds torchvision or else the stand-in.

    Afterwards the stand-in is gone: other packages would take it for the real one.
    """
    with warnings.catch_warnings(action="ignore"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError):  # absent, or compiled for another torch
            with _faked():
                yield
        else:
            yield


@contextlib.contextmanager
def _faked():
    root = types.ModuleType("torchvision")
    root.__version__, root.models = "0.13", types.ModuleType("torchvision.models")
    root.models.vgg16, root.models.inception_v3 = vgg16, inception_v3
    root.models.inception = types.ModuleType("torchvision.models.inception")
    for block in (InceptionA, InceptionB, InceptionC, InceptionD, InceptionE):
        setattr(root.models.inception, block.__name__, block)
    modules = {module.__name__: module for module in (root, root.models, root.models.inception)}
    sys.modules.update(modules)
    try:
        yield
    finally:
        # These alone: what was imported meanwhile (parts of NumPy) cannot be imported twice.
        for name in modules:
            del sys.modules[name]
