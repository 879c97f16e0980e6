#!/usr/bin/env python3
"""Writes ResNet-50 and BERT-base (3, 6 and 12 layers) as ONNX with seeded random weights, to measure compilation and speed.

    make_models.py DIR        needs numpy and onnx; writes about 1 GB

Each goes to DIR/NAME/model.onnx with DIR/NAME/inputs.npz. The structure is that of the published networks, as exporters
write them: batch norms folded into convolutions, GELU through Erf, masks added to attention scores.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Collects nodes and weights; each method gives the name of its result."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.count = [], [], 0

    def node(self, kind, inputs, **attributes):
        self.count += 1
        name = f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, array):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def normal(self, *shape, inputs):
        return self.weight((self.rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32))

    def zeros(self, size):
        return self.weight(np.zeros(size, np.float32))

    def save(self, folder, inputs, outputs, values):
        """`outputs` are names of results with the names that they get."""
        for name, (result, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [result], [name], name))
        infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()]
        graph = helper.make_graph(self.nodes, folder.name, infos, results, self.weights)
        model = helper.make_model(graph, producer_name="systole-bench", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "inputs.npz", **values)
        print(f"{folder / 'model.onnx'}: {len(self.nodes)} nodes, {(folder / 'model.onnx').stat().st_size / 1e6:.0f} MB")


def resnet50(folder):
    g = Graph(50)

    def conv(x, inputs, outputs, size, stride=1, relu=True, gain=2.0):
        w = g.normal(outputs, inputs, size, size, inputs=inputs * size * size / gain)
        x = g.node("Conv", [x, w, g.zeros(outputs)], kernel_shape=[size, size], strides=[stride] * 2, pads=[size // 2] * 4)
        return g.node("Relu", [x]) if relu else x

    x = conv("image", 3, 64, 7, 2)
    x = g.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            y = conv(x, channels, width, 1)
            y = conv(y, width, width, 3, step)
            # A small gain on the branch keeps sixteen sums of random branches from growing.
            y = conv(y, width, width * 4, 1, relu=False, gain=0.2)
            if block == 0:
                x = conv(x, channels, width * 4, 1, step, relu=False, gain=1.0)
            x = g.node("Relu", [g.node("Add", [y, x])])
            channels = width * 4
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])], axis=1)
    x = g.node("Gemm", [x, g.normal(1000, 2048, inputs=2048), g.zeros(1000)], transB=1)
    image = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    g.save(folder, {"image": (TensorProto.FLOAT, [1, 3, 224, 224])}, {"scores": (x, [1, 1000])}, {"image": image})


def bert(folder, layers, sequence=128, hidden=768, heads=12, inner=3072, words=30522):
    g = Graph(100 + layers)
    half, root2, one = (g.weight(np.float32(value)) for value in (0.5, np.sqrt(2), 1))
    scale = g.weight(np.float32(1 / np.sqrt(hidden // heads)))
    split = g.weight(np.array([0, 0, heads, hidden // heads], np.int64))
    joined = g.weight(np.array([0, 0, hidden], np.int64))

    def linear(x, inputs, outputs):
        x = g.node("MatMul", [x, g.normal(inputs, outputs, inputs=inputs)])
        return g.node("Add", [x, g.zeros(outputs)])

    def norm(x):
        ones = g.weight(np.ones(hidden, np.float32))
        return g.node("LayerNormalization", [x, ones, g.zeros(hidden)], axis=-1, epsilon=1e-12)

    def split_heads(x, order):
        return g.node("Transpose", [g.node("Reshape", [x, split])], perm=order)

    # A mask of 1 and 0 becomes 0 and the lowest score.
    mask = g.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    mask = g.node("Unsqueeze", [mask, g.weight(np.array([1, 2], np.int64))])
    mask = g.node("Mul", [g.node("Sub", [one, mask]), g.weight(np.float32(-3.4e38))])

    x = g.node("Gather", [g.normal(words, hidden, inputs=1), "input_ids"])
    x = norm(g.node("Add", [x, g.normal(1, sequence, hidden, inputs=1)]))
    for _ in range(layers):
        q = split_heads(linear(x, hidden, hidden), [0, 2, 1, 3])
        k = split_heads(linear(x, hidden, hidden), [0, 2, 3, 1])
        v = split_heads(linear(x, hidden, hidden), [0, 2, 1, 3])
        scores = g.node("Mul", [g.node("MatMul", [q, k]), scale])
        p = g.node("Softmax", [g.node("Add", [scores, mask])], axis=-1)
        a = g.node("Transpose", [g.node("MatMul", [p, v])], perm=[0, 2, 1, 3])
        a = linear(g.node("Reshape", [a, joined]), hidden, hidden)
        x = norm(g.node("Add", [a, x]))
        h = linear(x, hidden, inner)
        gelu = g.node("Add", [g.node("Erf", [g.node("Div", [h, root2])]), one])
        gelu = g.node("Mul", [g.node("Mul", [h, gelu]), half])
        x = norm(g.node("Add", [linear(gelu, inner, hidden), x]))
    rng = np.random.default_rng(2)
    values = {
        "input_ids": rng.integers(0, words, (1, sequence)),
        "attention_mask": np.ones((1, sequence), np.int64),
    }
    inputs = {name: (TensorProto.INT64, [1, sequence]) for name in values}
    g.save(folder, inputs, {"hidden": (x, [1, sequence, hidden])}, values)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    resnet50(folder / "resnet50")
    for layers in (3, 6, 12):
        bert(folder / f"bert_{layers}", layers)


if __name__ == "__main__":
    main()
