"""Vision-language models by a short name, with what decides how a text is drawn for them and what machine runs them.

Any other model is named by its hub id or path: `--teacher vllm --model NAME`. The figures are of the models' own cards
and configurations.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisionModel:
    """One vision-language model.

    `size` (width, height) in pixels is that of a drawn page: the largest that the model takes without scaling it down,
    or a whole number of its tiles. `page_tokens` are what such a page costs of the prompt, and `context` how many
    tokens a prompt may have. `weights_gb` are its weights in 16 bits, in units of 1e9 bytes; the engine needs some
    more. `prompt` is the turn that its chat template makes of one picture and the words Q. `limits` is what a user
    should know.
    """

    name: str
    model: str
    size: tuple[int, int]
    page_tokens: int
    context: int
    weights_gb: float
    prompt: str
    limits: str


VISION_MODELS = (
    VisionModel(
        "llava",
        "llava-hf/llava-1.5-7b-hf",
        (336, 336),
        576,
        4096,
        14.1,
        "USER: <image>\nQ ASSISTANT:",
        "scales any picture to 336x336; trained on one picture a prompt",
    ),
    VisionModel(
        "llava-next",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        (672, 672),
        2928,
        32768,
        15.1,
        "[INST] <image>\nQ [/INST]",
        "cuts a picture into tiles of 336x336: long prompts",
    ),
    VisionModel(
        "qwen2.5-vl",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        (672, 672),
        576,
        128000,
        16.6,
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Q<|im_end|>\n<|im_start|>assistant\n",
        "any size in steps of 28 pixels; a system turn is put before the question",
    ),
    VisionModel(
        "smolvlm",
        "HuggingFaceTB/SmolVLM-Instruct",
        (768, 768),
        1377,
        16384,
        4.5,
        "<|im_start|>User:<image>Q<end_of_utterance>\nAssistant:",
        "enlarges every picture to 1536 pixels and cuts it into tiles of 384x384",
    ),
    VisionModel(
        "gemma-3",
        "google/gemma-3-4b-it",
        (896, 896),
        256,
        131072,
        8.6,
        "<start_of_turn>user\n<start_of_image>Q<end_of_turn>\n<start_of_turn>model\n",
        "gated: accept its licence on the hub and set HF_TOKEN; not in float16",
    ),
    VisionModel(
        "internvl",
        "OpenGVLab/InternVL3-8B-hf",
        (448, 448),
        256,
        32768,
        15.9,
        "<|im_start|>user\n<IMG_CONTEXT>\nQ<|im_end|>\n<|im_start|>assistant\n",
        "tiles of 448x448, up to 12 a picture",
    ),
)


def find_vision_model(model: str) -> VisionModel | None:
    """The model of that hub id, whatever its revision; None where the table has none."""
    return next((known for known in VISION_MODELS if known.model == model.partition("@")[0]), None)
