#!/usr/bin/env python3
"""Writes the ONNX backend tests, which the package `onnx` carries and generates, as plain files.

    prepare.py DIR        needs numpy and onnx; takes about a minute

For each test: DIR/CATEGORY/NAME/model.onnx and values.bin. DIR/index.txt says what is in them, one test after another,
fields separated by tabs:

    test    CATEGORY/NAME
    ops     every operator of the model, subgraphs included
    near    absolute and relative tolerance
    set     starts a set of inputs and outputs
    input   name, element type, shape: as many bytes of values.bin, after those of the line before
    output  the same
    other   input or output, name, what it is: a value that is not a tensor of numbers (no bytes)
    end

Element types have our names; bool and types below 8 bits take a byte an element, the others are little-endian.
"""

import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

NAMES = {
    TensorProto.BOOL: "bool",
    TensorProto.INT4: "i4",
    TensorProto.INT8: "i8",
    TensorProto.INT16: "i16",
    TensorProto.INT32: "i32",
    TensorProto.INT64: "i64",
    TensorProto.UINT4: "u4",
    TensorProto.UINT8: "u8",
    TensorProto.UINT16: "u16",
    TensorProto.UINT32: "u32",
    TensorProto.UINT64: "u64",
    TensorProto.DOUBLE: "f64",
    TensorProto.FLOAT: "f32",
    TensorProto.FLOAT16: "f16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.FLOAT8E4M3FN: "f8e4m3",
    TensorProto.FLOAT8E5M2: "f8e5m2",
    TensorProto.FLOAT4E2M1: "f4e2m1",
}


def operators(graph, found):
    for node in graph.node:
        found.add(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                operators(attribute.g, found)
            for inner in attribute.graphs:
                operators(inner, found)
    return found


def tensor(value):
    """Name of the element type, shape and bytes; or nothing, where it is not a tensor of numbers that we know."""
    if isinstance(value, TensorProto):
        if value.data_type not in NAMES:
            return None
        kind, array = value.data_type, numpy_helper.to_array(value)
    else:
        array = np.asarray(value)
        if array.dtype.kind in "OUSc":
            return None
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        if kind not in NAMES:
            return None
    name, array = NAMES[kind], np.ascontiguousarray(array).reshape(array.shape)
    if name in ("i4", "u4"):
        array = array.astype(np.int8 if name == "i4" else np.uint8)
    return name, array.shape, array.tobytes()


class Writer:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # The index gets its name when all is written, so that its presence means that the tests are there.
        self.unfinished = folder / "index.part"
        self.index = self.unfinished.open("w")
        self.count = 0

    def line(self, *fields):
        fields = [str(field) for field in fields]
        assert not any("\t" in field or "\n" in field for field in fields)
        self.index.write("\t".join(fields) + "\n")

    def test(self, category, name, model, sets, atol, rtol):
        folder = self.folder / category / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        weights = {weight.name for weight in model.graph.initializer}
        inputs = list(model.graph.input)
        if len(inputs) > len(sets[0][0]):
            inputs = [value for value in inputs if value.name not in weights]
        self.line("test", f"{category}/{name}")
        self.line("ops", *sorted(operators(model.graph, set())))
        self.line("near", atol, rtol)
        with (folder / "values.bin").open("wb") as data:
            for given, wanted in sets:
                self.line("set")
                for side, infos, values in (("input", inputs, given), ("output", model.graph.output, wanted)):
                    for info, value in zip(infos, values):
                        self.value(side, info, value, data)
        self.line("end")
        self.count += 1

    def finish(self):
        self.index.close()
        self.unfinished.rename(self.folder / "index.txt")

    def value(self, side, info, value, data):
        if value is None:
            return
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            self.line("other", side, info.name, kind.removesuffix("_type"))
            return
        if isinstance(value, bytes):
            value = TensorProto.FromString(value)
        found = tensor(value)
        if found is None:
            self.line("other", side, info.name, TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower())
            return
        name, shape, bytes_ = found
        self.line(side, info.name, name, ",".join(map(str, shape)))
        data.write(bytes_)


def node_tests(writer):
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        writer.test("node", case.name, case.model, case.data_sets, case.atol, case.rtol)


def stored_tests(writer, folder, category):
    for test in sorted((folder / category).iterdir()):
        sets = []
        for stored in sorted(test.glob("test_data_set_*")):
            read = lambda side: [
                (stored / f"{side}_{at}.pb").read_bytes() for at in range(len(list(stored.glob(f"{side}_*.pb"))))
            ]
            sets.append((read("input"), read("output")))
        writer.test(category, test.name, onnx.load(test / "model.onnx"), sets, 1e-7, 1e-3)


def light_tests(writer, folder):
    """Classic networks whose weights are constants; the input is a ramp from 0 to 1."""
    for path in sorted((folder / "light").glob("*.onnx")):
        model = onnx.load(path)
        weights = {weight.name for weight in model.graph.initializer}
        inputs = []
        for value in model.graph.input:
            if value.name not in weights:
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                count = int(np.prod(shape))
                inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
        wanted = path.with_name(path.stem + "_output_0.pb").read_bytes()
        writer.test("light", path.stem, model, [(inputs, [wanted])], 1e-7, 1e-3)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.filterwarnings("ignore")
    import onnx.backend.test

    folder = pathlib.Path(onnx.backend.test.__file__).parent / "data"
    writer = Writer(pathlib.Path(sys.argv[1]))
    node_tests(writer)
    for category in ("simple", "pytorch-converted", "pytorch-operator"):
        stored_tests(writer, folder, category)
    light_tests(writer, folder)
    writer.finish()
    print(f"{writer.count} tests written to {writer.folder}")


if __name__ == "__main__":
    main()
