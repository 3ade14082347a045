"""all-MiniLM-L6-v2 as an ONNX graph: token ids and mask in, unit-length mean-pooled vectors out.

usage: minilm_onnx.py MODEL_FOLDER OUT_FOLDER

MODEL_FOLDER holds config.json, model.safetensors and tokenizer.json. The graph is written node
by node (77 of them, no tracing, no torch) with ONNX Runtime's fused Attention and BiasGelu, fp32.

Source: Wang et al. 2020, MiniLM (arXiv:2002.10957); Reimers and Gurevych 2019, Sentence-BERT.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

FUSED = "com.microsoft"  # ONNX Runtime's own operators; its CPU build has kernels for them
OPSET, OPSET_FUSED, IR_VERSION = 20, 1, 10

Array = NDArray[Any]


class OnnxGraph:
    """Nodes and constants, collected in order; each method returns the name of its output."""

    def __init__(self, weights: dict[str, Array], layer_norm_eps: float) -> None:
        self.weights = weights
        self.layer_norm_eps = layer_norm_eps
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Array) -> str:
        """A constant tensor."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def axes(self, name: str, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(name, np.array(values, np.int64))

    def node(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        """One operator."""
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def bias(self, key: str) -> str:
        """The bias of module ``key`` as a constant."""
        return self.constant(f"{key}.b", self.weights[f"{key}.bias"])

    def matmul(self, x: str, key: str, out: str) -> str:
        """``x`` times the weight of ``key``, without its bias."""
        return self.node(
            "MatMul", [x, self.constant(f"{key}.w", self.weights[f"{key}.weight"].T)], out
        )

    def linear(self, x: str, key: str, out: str) -> str:
        """The affine module ``key``."""
        return self.node("Add", [self.matmul(x, key, f"{out}_mm"), self.bias(key)], out)

    def layer_norm(self, x: str, key: str, out: str) -> str:
        """The layer norm ``key`` over the last axis."""
        scale = self.constant(f"{key}.w", self.weights[f"{key}.weight"])
        return self.node(
            "LayerNormalization",
            [x, scale, self.bias(key)],
            out,
            axis=-1,
            epsilon=self.layer_norm_eps,
        )

    def residual_norm(self, x: str, skip: str, key: str, out: str) -> str:
        """Post-norm: layer norm of ``x`` plus ``skip``."""
        return self.layer_norm(self.node("Add", [x, skip], f"{out}_sum"), key, out)


def embeddings(graph: OnnxGraph) -> str:
    """Word plus position vectors; the token type is always 0, so its row joins the positions."""
    table = graph.weights["embeddings.position_embeddings.weight"]
    token_type = graph.weights["embeddings.token_type_embeddings.weight"][0]
    words = graph.constant("word", graph.weights["embeddings.word_embeddings.weight"])
    graph.node("Gather", [words, "input_ids"], "word_vectors")
    graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    positions = graph.constant("position", table + token_type)
    graph.node(
        "Slice",
        [positions, graph.axes("zero", 0), "length", graph.axes("axis0", 0)],
        "position_vectors",
    )
    return graph.residual_norm(
        "word_vectors", "position_vectors", "embeddings.LayerNorm", "embedded"
    )


def transformer_layer(graph: OnnxGraph, x: str, index: int, heads: int) -> str:
    """One post-norm BERT layer, (batch, tokens, hidden) to the same."""
    layer, out = f"encoder.layer.{index}", f"layer{index}"
    qkv = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([graph.weights[f"{key}.weight"].T for key in qkv], axis=1)
    bias = np.concatenate([graph.weights[f"{key}.bias"] for key in qkv])
    packed = [graph.constant(f"{out}.qkv.w", weight), graph.constant(f"{out}.qkv.b", bias)]
    attended = graph.node(
        "Attention", [x, *packed, "mask_int"], f"{out}_attention", domain=FUSED, num_heads=heads
    )
    key = f"{layer}.attention.output"
    projected = graph.linear(attended, f"{key}.dense", f"{out}_projected")
    x = graph.residual_norm(projected, x, f"{key}.LayerNorm", f"{out}_middle")
    key = f"{layer}.intermediate.dense"
    up = graph.matmul(x, key, f"{out}_up")
    gelu = graph.node("BiasGelu", [up, graph.bias(key)], f"{out}_gelu", domain=FUSED)
    down = graph.linear(gelu, f"{layer}.output.dense", f"{out}_down")
    return graph.residual_norm(down, x, f"{layer}.output.LayerNorm", f"{out}_end")


def mean_pool(graph: OnnxGraph, x: str) -> str:
    """Masked sum over tokens, to unit length: the divisor of a mean would cancel."""
    graph.node("Unsqueeze", ["mask", graph.axes("axis_last", -1)], "mask_column")
    graph.node("Mul", [x, "mask_column"], "masked")
    graph.node("ReduceSum", ["masked", graph.axes("axis1", 1)], "sum", keepdims=0)
    return graph.node("LpNormalization", ["sum"], "embedding", axis=-1, p=2)


def build(config: dict[str, Any], weights: dict[str, Array]) -> onnx.ModelProto:
    """The whole model; int64 ``input_ids`` and ``attention_mask`` (b, s) to float32 (b, hidden)."""
    kind = (config["model_type"], config["hidden_act"])
    if kind != ("bert", "gelu"):
        raise SystemExit(f"need a BERT with gelu, got {kind[0]} with {kind[1]}")
    graph = OnnxGraph(weights, config["layer_norm_eps"])
    graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    graph.node("Cast", ["attention_mask"], "mask_int", to=TensorProto.INT32)
    x = embeddings(graph)
    for index in range(config["num_hidden_layers"]):
        x = transformer_layer(graph, x, index, config["num_attention_heads"])
    mean_pool(graph, x)
    value = helper.make_tensor_value_info
    tokens = [value(n, TensorProto.INT64, ["b", "s"]) for n in ("input_ids", "attention_mask")]
    vector = value("embedding", TensorProto.FLOAT, ["b", config["hidden_size"]])
    constants = list(graph.constants.values())
    body = helper.make_graph(graph.nodes, "minilm", tokens, [vector], constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, OPSET_FUSED)]
    return helper.make_model(
        body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sage"
    )


def main(source: Path, out: Path) -> None:
    """Write model.onnx and tokenizer.json into ``out``."""
    config = json.loads((source / "config.json").read_text())
    model = build(config, load_file(source / "model.safetensors"))
    out.mkdir(parents=True)
    onnx.save(model, out / "model.onnx")
    shutil.copy(source / "tokenizer.json", out / "tokenizer.json")
    sys.stdout.write(f"{out}: {len(model.graph.node)} nodes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
