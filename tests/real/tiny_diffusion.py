"""Stable Diffusion and SDXL pipelines of about a million random weights, with a tokenizer trained on the spot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WINDOW = 32  # tokens, with a mark at the beginning and one at the end
START, END = "<|startoftext|>", "<|endoftext|>"
WIDTH = 32  # of the text encoder's vectors
EDGE = 32  # pixels of the picture: 4 x 4 in the latent, the VAE halves it three times


def train_tokenizer(texts: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer: byte-pair encoding with a mark at the end of words, learnt from `texts`."""
    letters = [chr(code) for code in range(33, 127)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        list(texts) * 4, trainers.BpeTrainer(vocab_size=120, initial_alphabet=letters, end_of_word_suffix="</w>")
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer: Any = CLIPTokenizer  # its hints know merges as strings only
    return cast(CLIPTokenizer, tokenizer(vocab=vocab, merges=merges, model_max_length=WINDOW))


def make_parts(texts: Sequence[str], cross_attention: int, **unet: Any) -> dict[str, Any]:
    """What both pipelines are made of; weights are random, and the same each time."""
    torch.manual_seed(11)
    return {
        "tokenizer": train_tokenizer(texts),
        "vae": AutoencoderKL(
            block_out_channels=(16, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=EDGE,
        ),
        "unet": UNet2DConditionModel(
            sample_size=EDGE // 8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=cross_attention,
            norm_num_groups=8,
            **unet,
        ),
    }


def describe_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Of a text encoder of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_stable_diffusion(folder: Path, texts: Sequence[str], safety: bool = False) -> Path:
    """A Stable Diffusion pipeline in `folder`; with `safety`, its checker objects to every picture."""
    parts = make_parts(texts, WIDTH, attention_head_dim=8)
    checker, extractor = None, None
    if safety:
        extractor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        checker = make_strict_checker()
    pipeline: Any = StableDiffusionPipeline(  # diffusers gives its pipelines no hint of save_pretrained
        **parts,
        text_encoder=CLIPTextModel(describe_text_encoder(parts["tokenizer"])),
        # As that of Stable Diffusion 1.4.
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, skip_prk_steps=True
        ),
        safety_checker=checker,
        feature_extractor=extractor,
        requires_safety_checker=safety,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_sdxl(folder: Path, texts: Sequence[str]) -> Path:
    """An SDXL pipeline in `folder`, with a scheduler that adds noise at every step."""
    parts = make_parts(
        texts,
        2 * WIDTH,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )
    config = describe_text_encoder(parts["tokenizer"])
    pipeline: Any = StableDiffusionXLPipeline(
        **parts,
        tokenizer_2=parts["tokenizer"],
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        scheduler=DDPMScheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder


def make_strict_checker() -> StableDiffusionSafetyChecker:
    """A safety checker to which every picture looks like every concept."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights.data.fill_(-1.0)  # the least likeness that counts
    return checker
