import pytest

from harvest.chat.pricing import (
    Price,
    Usage,
    bound_image_tokens,
    bound_tokens,
    find_price,
    guess_image_tokens,
    guess_tokens,
)
from shared.errors import UsageError


def test_given_prices_are_dollars_a_million_tokens() -> None:
    price = find_price("any", "http://localhost:8000/v1", 2.0, 8.0)
    assert price is not None
    assert price.cost(Usage(1_000_000, 500_000)) == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gpt-4o-mini", "https://api.openai.com/v1"),
        ("claude-sonnet-4-5", "https://api.anthropic.com/v1"),
        ("openai/gpt-4o-mini", "https://openrouter.ai/api/v1"),
        ("gemini-2.5-flash", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("google/gemini-2.5-flash", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l"),
        ("openai.gpt-oss-20b-1:0", "https://bedrock-mantle.us-west-2.api.aws/v1"),
        ("gpt-4o", "https://ours.openai.azure.com/openai/v1"),
        ("deepseek-chat", "https://api.deepseek.com"),
        ("mistral-small-latest", "https://api.mistral.ai/v1"),
        ("openai/gpt-oss-20b", "https://api.groq.com/openai/v1"),
        ("accounts/fireworks/models/gpt-oss-20b", "https://api.fireworks.ai/inference/v1"),
    ],
)
def test_known_models_have_a_price_and_its_source(model: str, url: str) -> None:
    price = find_price(model, url)
    assert price is not None
    assert 0 < price.cached_input_usd <= price.input_usd < price.output_usd < 1e-3
    assert price.source.startswith("genai-prices")


def test_a_server_of_ones_own_has_none_even_where_its_model_is_sold_elsewhere() -> None:
    assert find_price("gpt-4o-mini", "http://localhost:8000/v1") is None


@pytest.mark.parametrize(("price_in", "price_out"), [(1.0, None), (None, 1.0), (-1.0, 2.0), (float("nan"), 1.0)])
def test_half_a_price_or_a_negative_one_is_refused(price_in: float | None, price_out: float | None) -> None:
    with pytest.raises(UsageError, match="price"):
        find_price("any", "http://localhost/v1", price_in, price_out)


def test_cached_tokens_are_cheaper_and_never_more_than_the_prompt() -> None:
    price = Price(2.0, 10.0, 0.5, "test")
    assert price.cost(Usage(10, 1, cached_tokens=4)) == 6 * 2.0 + 4 * 0.5 + 10.0
    assert price.cost(Usage(10, 0, cached_tokens=400)) == 5.0


def test_no_text_has_more_tokens_than_its_bound() -> None:
    for text in ("plain words", "Ελληνικά", "漢字かな交じり文", "🙂" * 10, ""):
        assert guess_tokens(text) <= bound_tokens(text) == len(text.encode())


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o", 85 + 170),
        ("gpt-4o-mini", 2833 + 5667),
        ("claude-sonnet-4-5", 350),
        ("gemini-2.5-flash", 258),
        ("llava-hf/llava-1.5-7b-hf", 37 * 37),
    ],
)
def test_pictures_by_the_published_rules(model: str, tokens: int) -> None:
    assert guess_image_tokens(model, 512, 512) == tokens
    assert bound_image_tokens(model, 512, 512) >= tokens
