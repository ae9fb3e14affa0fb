"""What the tests of recipes share: a tiny student, and a tiny teacher of pictures."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTImageProcessorPil, ViTModel

from tests.distill.conftest import tiny_student as tiny_student


@pytest.fixture(scope="session")
def deep_student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of tiny_student with a random BERT of 8 layers x 16, so that its first six are another student."""
    folder = tmp_path_factory.mktemp("deep") / "bert"
    folder.mkdir()
    for path in tiny_student.iterdir():
        if path.name.startswith("tokenizer") or path.name == "special_tokens_map.json":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=BertConfig.from_pretrained(tiny_student).vocab_size,
        hidden_size=16,
        num_hidden_layers=8,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT of 1 layer x 16: a teacher whose vectors depend on the picture."""
    folder = tmp_path_factory.mktemp("tiny") / "vit"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=224,
        patch_size=56,
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)
    return folder
