"""Batch norm behind a convolution, in a graph that oneDNN trains, does not update its running statistics rightly."""

import copy

import paddle
from paddle import nn


class Network(nn.Layer):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2D(8, 8, 3), nn.BatchNorm2D(8)

    def forward(self, images):
        return self.norm(self.convolution(images.squeeze(0))).unsqueeze(0)


paddle.seed(0)
paddle.set_flags({"FLAGS_use_onednn": True})
eager = Network()
compiled = paddle.jit.to_static(copy.deepcopy(eager), full_graph=True)
images = paddle.randn([1, 4, 8, 16, 16])
for network in (eager, compiled):
    for _ in range(3):
        network(images).sum().backward()
expected, found = eager.norm._variance, compiled.norm._variance
gap = float((found - expected).abs().max() / expected.abs().max())
print(f"running variance: expected {expected.numpy()[:3]}, found {found.numpy()[:3]}")
raise SystemExit(not gap < 1e-4)
