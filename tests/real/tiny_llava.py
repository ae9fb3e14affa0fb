"""A LLaVA of 0.3 million random parameters, made on the spot: real architecture, real files, no download.

Its weights are drawn wide enough that pictures and words change what it says.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH_SIZE = 56, 14
PICTURE_WEIGHT = 20.0
_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
_CORPUS = (
    "USER: Is this film review positive? Answer with one word, yes or no. ASSISTANT: yes no Yes No",
    "Does the first text entail the second? Answer with entailment, neutral or contradiction.",
    "a gorgeous, witty, seductive movie. the plot is dull and the acting worse. i laughed from the first scene on.",
    "An honest and moving film about growing old; loud, long and empty; two hours that nobody gives back to me.",
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a few sentences; single letters and bytes are tokens too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    unknown, begin, end, pad, _ = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=["<image>"],
        extra_special_tokens={"image_token": "<image>"},
    )


def make_tiny_llava(folder: Path, image_size: int = IMAGE_SIZE, width: int = 64) -> Path:
    """Write the model, its tokenizer and its processor into `folder`, as from_pretrained and vLLM read them.

    `image_size` is in pixels, and `width`, a multiple of 32, that of the text model's layers.
    """
    tokenizer = make_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=PATCH_SIZE,
        projection_dim=32,
        initializer_factor=3.0,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    picture = tokenizer.convert_tokens_to_ids("<image>")
    assert isinstance(picture, int)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=picture,
        vision_feature_layer=-1,
        image_seq_length=(image_size // PATCH_SIZE) ** 2,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "multi_modal_projector" in name:
                parameter.mul_(PICTURE_WEIGHT)
    model.save_pretrained(folder)
    _rename_as_published(folder / "model.safetensors")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}),
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=_CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


def _rename_as_published(path: Path) -> None:
    """Give the vision tower's weights the names of the published checkpoints, which vLLM reads.

    Version 5 of transformers writes them without `vision_model.`; it reads both.
    """
    tensors = load_file(path)
    tower = "vision_tower."
    renamed = {}
    for name, tensor in tensors.items():
        if tower in name and f"{tower}vision_model." not in name:
            name = name.replace(tower, f"{tower}vision_model.", 1)
        renamed[name] = tensor
    save_file(renamed, path, metadata={"format": "pt"})
