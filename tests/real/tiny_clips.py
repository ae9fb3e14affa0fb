"""Text-to-video pipelines of random weights, and the parts that make one of a Stable Diffusion pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import CLIPTextModel

from tests.real.tiny_diffusion import WIDTH as CLIP_WIDTH
from tests.real.tiny_diffusion import describe_text_encoder, make_stable_diffusion, train_tokenizer
from tests.real.tiny_painters import WIDTH, make_t5, make_vae

LONGEST = 12  # frames of the motion adapter


def make_modelscope() -> Any:
    unet = UNet3DConditionModel(
        sample_size=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=CLIP_WIDTH,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    tokenizer = train_tokenizer(["a film of great charm and wit"])
    return TextToVideoSDPipeline(
        unet=unet,
        vae=make_vae(),
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(describe_text_encoder(tokenizer)),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False),
    )


def make_cogvideox(rotary: bool = False, patch_time: int | None = None) -> Any:
    """CogVideoX 2B, or with `rotary` positions 5B, and with patches in time 1.5."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=6,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_time,
        patch_bias=patch_time is None,
        use_rotary_positional_embeddings=rotary,
    )
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return CogVideoXPipeline(transformer=transformer, vae=vae, scheduler=CogVideoXDDIMScheduler(), **make_t5())


def make_ltx() -> Any:
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
    )
    return LTXPipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **make_t5())


def make_wan() -> Any:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **make_t5())


def make_mochi() -> Any:
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return MochiPipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **make_t5())


MAKERS: Mapping[str, Callable[[], Any]] = {
    "modelscope": make_modelscope,
    "cogvideox": make_cogvideox,
    "cogvideox-1.5": lambda: make_cogvideox(rotary=True, patch_time=2),
    "ltx": make_ltx,
    "wan": make_wan,
    "mochi": make_mochi,
}


def make_clip_maker(name: str, folder: Path) -> Path:
    """The pipeline of that name in `folder`; its weights are the same each time."""
    torch.manual_seed(13)
    MAKERS[name]().save_pretrained(folder)
    return folder


def make_animatediff(folder: Path) -> dict[str, Path]:
    """A Stable Diffusion pipeline and a motion adapter for it, in `folder`: the options that name them."""
    model = make_stable_diffusion(folder / "model", ["a film of great charm and wit"])
    torch.manual_seed(13)
    adapter: Any = MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        motion_max_seq_length=LONGEST,
    )
    adapter.save_pretrained(folder / "adapter")
    return {"model": model, "motion_adapter": folder / "adapter"}
