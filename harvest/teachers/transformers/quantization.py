"""Weights in fewer bits than they came in, so that a model fits: rounded by a library of its own while they load."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from shared.errors import require_extra


class Quantization(StrEnum):
    """The library that rounds the weights of all layers but the head, and to how many bits."""

    BITSANDBYTES_8 = "bitsandbytes-8bit"  # LLM.int8() (arXiv:2208.07339)
    BITSANDBYTES_4 = "bitsandbytes-4bit"  # NF4 of QLoRA (arXiv:2305.14314)
    TORCHAO_8 = "torchao-8bit"  # weights only, as int8

    @property
    def package(self) -> str:
        """The package that does it."""
        return self.value.partition("-")[0]

    def require(self) -> None:
        """Raise MissingExtraError where the package is not installed."""
        require_extra("quantize", "accelerate", self.package)

    def make_options(self, device: str, dtype: str) -> Mapping[str, Any]:
        """What from_pretrained is told, so that the weights lie on `device` and are computed with in `dtype`."""
        from transformers import BitsAndBytesConfig, TorchAoConfig

        config: Any
        if self is Quantization.BITSANDBYTES_8:
            config = BitsAndBytesConfig(load_in_8bit=True)
        elif self is Quantization.BITSANDBYTES_4:
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_use_double_quant=True,
            )
        else:
            from torchao.quantization import Int8WeightOnlyConfig

            config = TorchAoConfig(Int8WeightOnlyConfig())
        return {"quantization_config": config, "device_map": {"": device}}
