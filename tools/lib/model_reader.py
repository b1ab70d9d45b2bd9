#!/usr/bin/env python3
"""Reads ONNX, safetensors and GGUF files: the independent witness of core/model.

It shares no code and no tables with libmorsel and needs nothing but Python's standard library. It
is written for clarity on good files, not as a defence against bad ones: what it cannot read is a
ModelError.

    model_reader.py [--lines | --table] FILE...

prints for every file {"file", "format", "bytes", "sha256", "tensors": [...]}, and for every tensor
{"name", "type", "shape", "offset", "bytes", "flags", "sha256"}; with --lines one line per tensor
and none for the file; with --table one line of text per file and tensor, without hashes, as the
tests of core/model compare them. sha256 is of the tensor's bytes in the file. The names of ONNX tensors that
are not initializers of the main graph are paths: core/model/onnx.c says which.
"""
import argparse
import hashlib
import json
import math
import mmap
import struct
import sys


class ModelError(Exception):
    """The file is not what it says it is."""


def _entry(name, kind, shape, offset, size, flags=()):
    return {"name": name, "type": kind, "shape": list(shape), "offset": offset, "bytes": size,
            "flags": list(flags)}


# ---- safetensors --------------------------------------------------------------------------------

# name in the file: (name here, bits of an element)
SAFETENSORS_TYPES = {
    "BOOL": ("bool", 8), "I8": ("i8", 8), "U8": ("u8", 8), "I16": ("i16", 16), "U16": ("u16", 16),
    "I32": ("i32", 32), "U32": ("u32", 32), "I64": ("i64", 64), "U64": ("u64", 64),
    "F16": ("f16", 16), "BF16": ("bf16", 16), "F32": ("f32", 32), "F64": ("f64", 64),
    "C64": ("c64", 64), "F8_E4M3": ("f8_e4m3", 8), "F8_E4M3FNUZ": ("f8_e4m3fnuz", 8),
    "F8_E5M2": ("f8_e5m2", 8), "F8_E5M2FNUZ": ("f8_e5m2fnuz", 8), "F8_E8M0": ("f8_e8m0", 8),
    "F6_E2M3": ("f6_e2m3", 6), "F6_E3M2": ("f6_e3m2", 6), "F4": ("f4_e2m1", 4),
}


def _no_duplicates(pairs):
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ModelError("a key stands in one JSON object twice")
    return made


def read_safetensors(data):
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise ModelError("the JSON is longer than the file")
    header = json.loads(bytes(data[8:8 + length]).decode("utf-8"),
                        object_pairs_hook=_no_duplicates)
    tensors = []
    for name, value in header.items():
        if name == "__metadata__":
            continue
        kind, bits = SAFETENSORS_TYPES[value["dtype"]]
        begin, end = value["data_offsets"]
        if math.prod(value["shape"]) * bits != 8 * (end - begin):
            raise ModelError(f"{name}: shape and offsets disagree")
        tensors.append(_entry(name, kind, value["shape"], 8 + length + begin, end - begin))
    return tensors


# ---- GGUF ---------------------------------------------------------------------------------------

# number in the file: (name here, elements of a block, bytes of a block). 256 elements share a
# "super block" in the k and i kinds; the sums are the fields of one.
GGUF_TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 30: ("bf16", 1, 2), 28: ("f64", 1, 8),
    24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8),
    2: ("q4_0", 32, 2 + 16), 3: ("q4_1", 32, 2 + 2 + 16),
    6: ("q5_0", 32, 2 + 4 + 16), 7: ("q5_1", 32, 2 + 2 + 4 + 16),
    8: ("q8_0", 32, 2 + 32), 9: ("q8_1", 32, 2 + 2 + 32),
    10: ("q2_k", 256, 16 + 64 + 2 + 2), 11: ("q3_k", 256, 32 + 64 + 12 + 2),
    12: ("q4_k", 256, 2 + 2 + 12 + 128), 13: ("q5_k", 256, 2 + 2 + 12 + 32 + 128),
    14: ("q6_k", 256, 128 + 64 + 16 + 2), 15: ("q8_k", 256, 4 + 256 + 32),
    16: ("iq2_xxs", 256, 2 + 64), 17: ("iq2_xs", 256, 2 + 64 + 8),
    18: ("iq3_xxs", 256, 2 + 96), 19: ("iq1_s", 256, 2 + 32 + 16),
    20: ("iq4_nl", 32, 2 + 16), 21: ("iq3_s", 256, 2 + 64 + 8 + 32 + 4),
    22: ("iq2_s", 256, 2 + 64 + 16), 23: ("iq4_xs", 256, 2 + 2 + 4 + 128),
    29: ("iq1_m", 256, 32 + 16 + 8), 34: ("tq1_0", 256, 48 + 4 + 2), 35: ("tq2_0", 256, 64 + 2),
    39: ("mxfp4", 32, 1 + 16),
}
GGUF_VALUES = "BbHhIif?__Qqd"  # struct letters by value type; 8 is a string, 9 an array


class _GgufReader:
    def __init__(self, data):
        self.data, self.at = data, 4

    def unpack(self, letters):
        values = struct.unpack_from("<" + letters, self.data, self.at)
        self.at += struct.calcsize("<" + letters)
        return values if len(values) > 1 else values[0]

    def text(self):
        length = self.unpack("Q")
        raw = bytes(self.data[self.at:self.at + length])
        if len(raw) != length:
            raise ModelError("a string is cut off")
        self.at += length
        return raw

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.unpack(GGUF_VALUES[kind])
        kind, count = self.unpack("IQ")
        if kind in (8, 9):
            return [self.value(kind) for _ in range(count)]
        return self.unpack(f"{count}{GGUF_VALUES[kind]}") if count else ()


def read_gguf(data):
    reader = _GgufReader(data)
    version, count, pairs = reader.unpack("IQQ")
    if version not in (2, 3):
        raise ModelError(f"GGUF version {version}")
    metadata = {}
    for _ in range(pairs):
        key = reader.text().decode("utf-8")
        metadata[key] = reader.value(reader.unpack("I"))
    found = []
    for _ in range(count):
        name = reader.text().decode("utf-8")
        shape = [reader.unpack("Q") for _ in range(reader.unpack("I"))]
        kind, offset = reader.unpack("IQ")
        found.append((name, shape[::-1], kind, offset))
    alignment = metadata.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    tensors = []
    for name, shape, number, offset in found:
        kind, elements, size = GGUF_TYPES[number]
        blocks, rest = divmod(math.prod(shape), elements)
        if rest:
            raise ModelError(f"{name}: not whole blocks")
        tensors.append(_entry(name, kind, shape, start + offset, blocks * size))
    return tensors


# ---- ONNX ---------------------------------------------------------------------------------------

# number in the file: (name here, bits of an element or 0)
ONNX_TYPES = {
    1: ("f32", 32), 2: ("u8", 8), 3: ("i8", 8), 4: ("u16", 16), 5: ("i16", 16), 6: ("i32", 32),
    7: ("i64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("f16", 16), 11: ("f64", 64),
    12: ("u32", 32), 13: ("u64", 64), 14: ("c64", 64), 15: ("c128", 128), 16: ("bf16", 16),
    17: ("f8_e4m3", 8), 18: ("f8_e4m3fnuz", 8), 19: ("f8_e5m2", 8), 20: ("f8_e5m2fnuz", 8),
    21: ("u4", 4), 22: ("i4", 4), 23: ("f4_e2m1", 4), 24: ("f8_e8m0", 8), 25: ("u2", 2),
    26: ("i2", 2),
}


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value, at
        shift += 7


class _Message:
    """The fields of one message: number -> list of values in order. A value is an int, or a
    (start, end) stretch of the file for fixed-size and length-delimited ones."""

    def __init__(self, data, start, end):
        self.data, self.start, self.end, self.fields = data, start, end, {}
        at = start
        while at < end:
            tag, at = _varint(data, at)
            wire = tag & 7
            if wire == 0:
                value, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = (at, at + size), at + size
            elif wire == 2:
                size, at = _varint(data, at)
                value, at = (at, at + size), at + size
            else:
                raise ModelError(f"wire type {wire} at byte {at}")
            if at > end:
                raise ModelError(f"a field reaches past byte {end}")
            self.fields.setdefault(tag >> 3, []).append((wire, value))

    def all(self, number):
        return [value for _, value in self.fields.get(number, [])]

    def messages(self, number):
        return [_Message(self.data, *stretch) for stretch in self.all(number)]

    def number(self, number, default=0):
        return (self.all(number) or [default])[-1]

    def text(self, number):
        """The first one that is not empty."""
        for start, end in self.all(number):
            if end > start:
                return bytes(self.data[start:end]).decode("utf-8")
        return ""

    def integers(self, number):
        """Of a repeated field, packed or not."""
        found = []
        for wire, value in self.fields.get(number, []):
            if wire == 0:
                found.append(value)
                continue
            at, end = value
            while at < end:
                one, at = _varint(self.data, at)
                found.append(one)
        return found


def _onnx_tensor(message, name):
    shape = message.integers(1)
    kind, bits = ONNX_TYPES[message.number(2)]
    elements = math.prod(shape)
    if message.number(14) == 1 or message.all(13):
        return _entry(name, kind, shape, 0, 0, ["external"])
    raw = message.all(9)
    if raw and (raw[0][1] > raw[0][0] or not elements):
        start, end = raw[0]
        if end - start != -(-elements * bits // 8):
            raise ModelError(f"{name}: shape and raw_data disagree")
        return _entry(name, kind, shape, start, end - start)
    # float_data or double_data as one packed piece is an array as well.
    for number in (4, 10):
        pieces = [piece for piece in message.fields.get(number, [])]
        if len(pieces) == 1 and pieces[0][0] == 2 and pieces[0][1][1] > pieces[0][1][0]:
            start, end = pieces[0][1]
            return _entry(name, kind, shape, start, end - start)
    if not elements:
        return _entry(name, kind, shape, message.start, 0)
    return _entry(name, kind, shape, message.start, message.end - message.start, ["encoded"])


def _onnx_sparse(message, name, tensors):
    for number, part in sorted((number, part) for number, part in ((1, "values"), (2, "indices"))):
        for tensor in message.messages(number):
            tensors.append((tensor.start, _onnx_tensor(tensor, f"{name}/{part}")))


def _onnx_attribute(attribute, prefix, constant, tensors):
    own = attribute.text(1)
    name = prefix if constant and own in ("value", "sparse_value") else f"{prefix}/{own}"
    for tensor in attribute.messages(5):
        tensors.append((tensor.start, _onnx_tensor(tensor, name)))
    for index, tensor in enumerate(attribute.messages(10)):
        tensors.append((tensor.start, _onnx_tensor(tensor, f"{name}/{index}")))
    for sparse in attribute.messages(22):
        _onnx_sparse(sparse, name, tensors)
    for index, sparse in enumerate(attribute.messages(23)):
        _onnx_sparse(sparse, f"{name}/{index}", tensors)
    for graph in attribute.messages(6):
        _onnx_graph(graph, f"{name}/", tensors)
    for index, graph in enumerate(attribute.messages(11)):
        _onnx_graph(graph, f"{name}/{index}/", tensors)


def _onnx_node(node, prefix, index, tensors):
    name = prefix + (node.text(2) or node.text(3) or f"#{index}")
    for attribute in node.messages(5):
        _onnx_attribute(attribute, name, node.text(4) == "Constant", tensors)


def _onnx_graph(graph, prefix, tensors):
    for tensor in graph.messages(5):
        tensors.append((tensor.start, _onnx_tensor(tensor, prefix + tensor.text(8))))
    for sparse in graph.messages(15):
        _onnx_sparse(sparse, prefix + sparse.messages(1)[0].text(8), tensors)
    for index, node in enumerate(graph.messages(1)):
        _onnx_node(node, prefix, index, tensors)


def read_onnx(data):
    model = _Message(data, 0, len(data))
    if not model.all(7):
        raise ModelError("an ONNX model without a graph")
    tensors = []
    for graph in model.messages(7):
        _onnx_graph(graph, "", tensors)
    for index, training in enumerate(model.messages(20)):
        for graph in training.messages(1):
            _onnx_graph(graph, f"training/{index}/initialization/", tensors)
        for graph in training.messages(2):
            _onnx_graph(graph, f"training/{index}/algorithm/", tensors)
    for function in model.messages(25):
        parts = [function.text(10), function.text(1), function.text(13)]
        prefix = "function/" + "".join(part + "/" for part in parts if part)
        for index, node in enumerate(function.messages(7)):
            _onnx_node(node, prefix, index, tensors)
        for attribute in function.messages(11):
            _onnx_attribute(attribute, prefix, False, tensors)
    # In the order of the file, which is the order of their descriptions.
    return [tensor for _, tensor in sorted(tensors, key=lambda pair: pair[0])]


# ---- the whole ----------------------------------------------------------------------------------

def detect(data):
    if data[:4] == b"GGUF":
        return "gguf"
    if len(data) >= 10 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "safetensors"
    if len(data) > 4 and data[0] == 0x08:
        try:
            if _Message(data, 0, len(data)).all(7):
                return "onnx"
        except (ModelError, IndexError):
            pass
    return "bytes"


READERS = {"safetensors": read_safetensors, "gguf": read_gguf, "onnx": read_onnx,
           "bytes": lambda data: []}


def read_model(path, hashes=True):
    """The description of the file at path as a dictionary (see above)."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
    kind = detect(data)
    try:
        tensors = READERS[kind](data)
    except (KeyError, IndexError, ValueError, TypeError, struct.error) as error:
        raise ModelError(f"{path}: {kind}: {error!r}") from error
    view = memoryview(data)
    for tensor in tensors:
        end = tensor["offset"] + tensor["bytes"]
        if end > len(data):
            raise ModelError(f"{path}: {tensor['name']}: past the end of the file")
        if hashes:
            tensor["sha256"] = hashlib.sha256(view[tensor["offset"]:end]).hexdigest()
    model = {"file": path, "format": kind, "bytes": len(data)}
    if hashes:
        model["sha256"] = hashlib.sha256(view).hexdigest()
    model["tensors"] = tensors
    return model


def main():
    parser = argparse.ArgumentParser(description="Lists the tensors of model files as JSON.")
    parser.add_argument("--lines", action="store_true", help="one line per tensor")
    parser.add_argument("--table", action="store_true", help="text without hashes, for the tests")
    parser.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args()
    for path in options.files:
        try:
            model = read_model(path, hashes=not options.table)
        except (ModelError, OSError) as error:
            print(f"model_reader: {error}", file=sys.stderr)
            return 1
        if options.table:
            print(f"file {model['format']} {model['bytes']} {path}")
            for tensor in model["tensors"]:
                shape = ",".join(map(str, tensor["shape"]))
                print(f"{tensor['offset']} {tensor['bytes']} {tensor['type']} [{shape}] "
                      f"[{','.join(tensor['flags'])}] {tensor['name']}")
        elif options.lines:
            for tensor in model["tensors"]:
                print(json.dumps(tensor))
        else:
            print(json.dumps(model, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
