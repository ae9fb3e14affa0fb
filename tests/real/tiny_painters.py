"""Pipelines of random weights of the families behind Stable Diffusion: T5 and Gemma read their prompts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from string import printable
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    VQModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.real.tiny_diffusion import describe_text_encoder, train_tokenizer

WIDTH = 64  # of T5's vectors
LETTERS = [letter for letter in printable if not letter.isspace()]
BLOCKS: Mapping[str, Any] = {
    "block_out_channels": (16, 16, 32, 32),  # eight pixels a number
    "latent_channels": 4,
    "norm_num_groups": 8,
}


def make_t5() -> dict[str, Any]:
    """A T5 encoder and its tokenizer, a token a letter."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    config = T5Config(vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return {"text_encoder": T5EncoderModel(config), "tokenizer": T5Tokenizer(vocab=pieces, extra_ids=0)}


def make_clips(count: int, projected: bool) -> dict[str, Any]:
    """CLIP's text encoders and their tokenizers, numbered."""
    tokenizer = train_tokenizer(["a film of great charm and wit"])
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    parts: dict[str, Any] = {}
    for number in ("", "_2")[:count]:
        parts |= {f"text_encoder{number}": kind(describe_text_encoder(tokenizer)), f"tokenizer{number}": tokenizer}
    return parts


def number(parts: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """`parts` as those of that number."""
    return {f"{name}{suffix}": part for name, part in parts.items()}


def make_vae(**options: Any) -> AutoencoderKL:
    """An autoencoder that halves a picture three times."""
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(down_block_types=down, up_block_types=up, sample_size=32, **BLOCKS, **options)


def make_sd3() -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(shift_factor=0.06, scaling_factor=1.5),
        **make_clips(2, projected=True),
        **number(make_t5(), "_3"),
    )


def make_flux() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(shift_factor=0.06, scaling_factor=1.5),
        **make_clips(1, projected=False),
        **number(make_t5(), "_2"),
    )


def make_pixart() -> Any:
    transformer = PixArtTransformer2DModel(
        sample_size=4,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        norm_type="ada_norm_single",
    )
    return PixArtSigmaPipeline(transformer=transformer, scheduler=DDPMScheduler(), vae=make_vae(), **make_t5())


def make_sana() -> Any:
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    vocab = {word: place for place, word in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS))}
    config = Gemma2Config(
        vocab_size=len(vocab),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    return SanaPipeline(
        tokenizer=GemmaTokenizer(vocab=vocab, merges=[]),
        text_encoder=Gemma2Model(config),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
    )


def make_kandinsky() -> Any:
    unet = Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    movq = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        norm_num_groups=8,
    )
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.02, beta_schedule="squaredcos_cap_v2")
    return Kandinsky3Pipeline(unet=unet, movq=movq, scheduler=scheduler, **make_t5())


MAKERS: Mapping[str, Callable[[], Any]] = {
    "sd3": make_sd3,
    "flux": make_flux,
    "pixart": make_pixart,
    "sana": make_sana,
    "kandinsky": make_kandinsky,
}


def make_painter(name: str, folder: Path) -> Path:
    """The pipeline of that name in `folder`; its weights are the same each time."""
    torch.manual_seed(13)
    MAKERS[name]().save_pretrained(folder)
    return folder
