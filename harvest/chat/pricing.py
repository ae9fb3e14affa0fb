"""What a request costs: prices by model from genai-prices or from the user, and token counts known beforehand."""

import math
from dataclasses import dataclass

from harvest.chat.dialects import recognise_host
from shared.errors import UsageError

CHAT_OVERHEAD_TOKENS = 64  # a chat template's own tokens around one question, generously
# The same as it usually is: turns, roles and the short system prompt that a template adds. For estimates, not bounds.
TEMPLATE_TOKENS = 30
MOST_PATCHES = 16384  # of one picture, in an estimate: Qwen2.5-VL scales larger ones down to so many


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one reply as the endpoint counts them; `cost_usd` where it says what it bills (OpenRouter).

    NaN is a cost that no bill can have.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a token, and where they come from."""

    input_usd: float
    output_usd: float
    cached_input_usd: float
    source: str

    def cost(self, usage: Usage) -> float:
        """US dollars of one reply, by its tokens."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        return (
            (usage.prompt_tokens - cached) * self.input_usd
            + cached * self.cached_input_usd
            + usage.completion_tokens * self.output_usd
        )


def find_price(
    model: str, base_url: str, price_in: float | None = None, price_out: float | None = None
) -> Price | None:
    """The price of `model` at `base_url`: the given ones (US dollars a million tokens), else those of genai-prices.

    None where neither knows: a server of one's own, say. Raises UsageError where only one of the two is given, or
    one is negative.
    """
    if (price_in is None) != (price_out is None):
        raise UsageError("--price-in and --price-out belong together: give both, in US dollars a million tokens")
    if price_in is not None and price_out is not None:
        if not (0 <= price_in < math.inf and 0 <= price_out < math.inf):
            raise UsageError(f"a price cannot be {min(price_in, price_out)}: give US dollars a million tokens")
        return Price(price_in / 1e6, price_out / 1e6, price_in / 1e6, "--price-in and --price-out")
    from genai_prices import Usage as TokenCounts
    from genai_prices import __version__, calc_price

    host = recognise_host(base_url)
    provider = None if host is None else host.price_provider
    named = model if provider is None else model.rpartition("/")[2]

    def dollars(**tokens: int) -> float:
        # A thousand tokens: the lowest tier, which one question never leaves.
        if provider is not None:
            return float(calc_price(TokenCounts(**tokens), named, provider_id=provider).total_price) / 1000
        return float(calc_price(TokenCounts(**tokens), named, provider_api_url=base_url).total_price) / 1000

    try:
        fresh = dollars(input_tokens=1000)
        return Price(
            fresh,
            dollars(output_tokens=1000),
            min(dollars(input_tokens=1000, cache_read_tokens=1000), fresh),
            f"genai-prices {__version__}",
        )
    except LookupError:
        return None


def guess_tokens(text: str) -> int:
    """About how many tokens `text` has: a quarter of its bytes, which is near for English and other Latin scripts."""
    return math.ceil(len(text.encode()) / 4)


def bound_tokens(text: str) -> int:
    """At most how many tokens `text` has: a byte-level tokenizer spends no more than one a byte."""
    return len(text.encode())


def guess_image_tokens(model: str, width: int, height: int) -> int:
    """About how many tokens a picture costs, by the providers' published rules for the family of `model`.

    Sources: OpenAI "Images and vision" (85 and 170 a tile of 512 pixels, once the picture is scaled down into 2048 x
    2048 and its shorter side to 768; gpt-4o-mini 2833 and 5667), Anthropic "Vision" (pixels / 750, once its longer side
    is scaled down to 1568), Gemini "Token counting" (258 a tile of 768). Other models: one a patch of 14 x 14, as in
    LLaVA, and no more than MOST_PATCHES.
    """
    name = model.lower()
    if "claude" in name:
        width, height = _scale_down(width, height, 1568 / max(width, height))
        return math.ceil(width * height / 750)
    if "gemini" in name:
        return 258 * math.ceil(width / 768) * math.ceil(height / 768)
    if "gpt-" in name or name.startswith(("o1", "o3", "o4")):
        base, tile = (2833, 5667) if "gpt-4o-mini" in name else (85, 170)
        width, height = _scale_down(width, height, 2048 / max(width, height))
        width, height = _scale_down(width, height, 768 / min(width, height))
        return base + tile * math.ceil(width / 512) * math.ceil(height / 512)
    return min(math.ceil(width / 14) * math.ceil(height / 14), MOST_PATCHES)


def _scale_down(width: int, height: int, by: float) -> tuple[int, int]:
    return (max(1, math.floor(width * by)), max(1, math.floor(height * by))) if by < 1 else (width, height)


def bound_image_tokens(model: str, width: int, height: int) -> int:
    """At most how many tokens a picture costs: a half more than the published rules and one a patch of 14 x 14, of
    which there are MOST_PATCHES: whoever sells tokens scales larger pictures down.
    """
    patches = min(math.ceil(width / 14) * math.ceil(height / 14), MOST_PATCHES)
    return math.ceil(1.5 * max(guess_image_tokens(model, width, height), patches))
