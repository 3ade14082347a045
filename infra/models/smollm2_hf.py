"""SmolLM2 as a folder in Hugging Face's layout, made from its GGUF file; vLLM serves such a folder.

usage: smollm2_hf.py FILE.gguf OUT_FOLDER

The weights are unpacked to bfloat16; tokenizer and chat template come from the same file. Taking
the tensors into a model of our own making, and not by ``from_pretrained(gguf_file=...)``, lets us
check that each of them has found its place. Any GGUF file of a Llama will do.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

TIED = {"lm_head.weight"}  # the embeddings, under a second name


def unpack(file: Path) -> PreTrainedModel:
    """The model in ``file``, with every tensor in its place."""
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the saved weights are no longer quantized
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or set(missing) - TIED:
        raise SystemExit(f"{file}: tensors missing: {missing}, without a place: {unexpected}")
    model.tie_weights()
    return model.to(torch.bfloat16)


def main(file: Path, out: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files into ``out``."""
    model = unpack(file)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)
    print(f"{out}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
