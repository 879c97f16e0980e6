#!/usr/bin/env python3
"""Trains a small convolutional network on the handwritten digits of scikit-learn and exports it to ONNX.

    python3 -m venv venv && venv/bin/pip install numpy onnx scikit-learn && venv/bin/python train.py

Writes beside itself: model.onnx, images.npz (ten images that it was not trained on, one of each digit) and
expected.npz (what this script computes for them). Everything is numpy and one seed, so that the same versions give the same files.
"""

import pathlib

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

SEED = 20260101
EPOCHS = 30
BATCH = 32
HERE = pathlib.Path(__file__).parent


def patches(x):
    """The 3x3 neighbourhoods of x[n, c, h, w], padded with zeros, as [n, h, w, c * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def unpatch(grad, shape):
    """Adds the gradients of neighbourhoods up at their pixels: the transpose of `patches`."""
    n, c, h, w = shape
    grad = grad.reshape(n, h, w, c, 3, 3).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    for r in range(3):
        for s in range(3):
            padded[:, :, r : r + h, s : s + w] += grad[:, :, r, s]
    return padded[:, :, 1:-1, 1:-1]


def pool(x):
    """The maximum of each 2x2 block, and which pixel it was."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    return blocks.max(axis=-1), blocks.argmax(axis=-1)


def unpool(grad, where):
    n, c, h, w = grad.shape
    blocks = np.zeros((n, c, h, w, 4), np.float32)
    np.put_along_axis(blocks, where[..., None], grad[..., None], axis=-1)
    return blocks.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h * 2, w * 2)


def forward(p, x):
    """Scores of the ten digits, and what the backward pass needs."""
    columns1 = patches(x)
    relu1 = np.maximum((columns1 @ p["conv1_w"].reshape(16, -1).T + p["conv1_b"]).transpose(0, 3, 1, 2), 0)
    pooled1, where1 = pool(relu1)
    columns2 = patches(pooled1)
    relu2 = np.maximum((columns2 @ p["conv2_w"].reshape(32, -1).T + p["conv2_b"]).transpose(0, 3, 1, 2), 0)
    pooled2, where2 = pool(relu2)
    flat = pooled2.reshape(len(x), -1)
    return flat @ p["dense_w"] + p["dense_b"], (columns1, relu1, where1, pooled1, columns2, relu2, where2, pooled2, flat)


def gradients(p, x, labels):
    """Of the cross entropy of softmax(scores), averaged over the batch."""
    scores, (columns1, relu1, where1, pooled1, columns2, relu2, where2, pooled2, flat) = forward(p, x)
    grad = np.exp(scores - scores.max(axis=1, keepdims=True))
    grad /= grad.sum(axis=1, keepdims=True)
    grad[np.arange(len(x)), labels] -= 1
    grad /= len(x)
    found = {"dense_w": flat.T @ grad, "dense_b": grad.sum(axis=0)}
    grad = unpool((grad @ p["dense_w"].T).reshape(pooled2.shape), where2) * (relu2 > 0)
    grad = grad.transpose(0, 2, 3, 1)
    found["conv2_w"] = np.einsum("nhwo,nhwk->ok", grad, columns2).reshape(p["conv2_w"].shape)
    found["conv2_b"] = grad.sum(axis=(0, 1, 2))
    grad = unpatch(grad @ p["conv2_w"].reshape(32, -1), pooled1.shape)
    grad = (unpool(grad, where1) * (relu1 > 0)).transpose(0, 2, 3, 1)
    found["conv1_w"] = np.einsum("nhwo,nhwk->ok", grad, columns1).reshape(p["conv1_w"].shape)
    found["conv1_b"] = grad.sum(axis=(0, 1, 2))
    return found


def train(images, labels, rng):
    def normal(*shape, inputs):
        return (rng.standard_normal(shape) * np.sqrt(2 / inputs)).astype(np.float32)

    p = {
        "conv1_w": normal(16, 1, 3, 3, inputs=9),
        "conv1_b": np.zeros(16, np.float32),
        "conv2_w": normal(32, 16, 3, 3, inputs=144),
        "conv2_b": np.zeros(32, np.float32),
        "dense_w": normal(128, 10, inputs=128),
        "dense_b": np.zeros(10, np.float32),
    }
    velocity = {name: np.zeros_like(value) for name, value in p.items()}
    for epoch in range(EPOCHS):
        rate = 0.05 * (1 - epoch / EPOCHS)
        order = rng.permutation(len(images))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            # Digits moved by a pixel are the same digits; without this it learns places instead of shapes.
            moved = np.roll(images[chosen], rng.integers(-1, 2), axis=3)
            for name, grad in gradients(p, moved, labels[chosen]).items():
                velocity[name] = 0.9 * velocity[name] - rate * grad
                p[name] = (p[name] + velocity[name]).astype(np.float32)
    return p


def export(p):
    """The same network as ONNX: pixels of 0 to 16 in, scores and the digit itself out."""
    nodes = [
        helper.make_node("Div", ["image", "sixteen"], ["scaled"], "scale"),
        helper.make_node("Conv", ["scaled", "conv1_w", "conv1_b"], ["c1"], "conv1", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "conv2_w", "conv2_b"], ["c2"], "conv2", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "dense_w", "dense_b"], ["scores"], "dense"),
        helper.make_node("ArgMax", ["scores"], ["digit"], "choose", axis=1, keepdims=0),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in p.items()]
    weights.append(numpy_helper.from_array(np.float32(16), "sixteen"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10]),
        ],
        weights,
        doc_string="Handwritten digits of 8 by 8 pixels of 0 to 16.",
    )
    model = helper.make_model(graph, producer_name="systole-examples", ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / "model.onnx")


def main():
    rng = np.random.default_rng(SEED)
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    order = rng.permutation(len(images))
    test, rest = order[:360], order[360:]
    p = train(images[rest] / 16, digits.target[rest], rng)

    scores, _ = forward(p, images[test] / 16)
    right = (scores.argmax(axis=1) == digits.target[test]).mean()
    print(f"right on {right:.1%} of {len(test)} images that it was not trained on")

    export(p)
    shown = np.array([test[digits.target[test] == digit][0] for digit in range(10)])
    scores, _ = forward(p, images[shown] / 16)
    np.savez(HERE / "images.npz", image=images[shown])
    np.savez(HERE / "expected.npz", digit=scores.argmax(axis=1), scores=scores.astype(np.float32))
    print(f"shown: {digits.target[shown].tolist()}, read: {scores.argmax(axis=1).tolist()}")


if __name__ == "__main__":
    main()
