"""Student models and their tokenizers as transformers keeps them: loaded, cut down, and written again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import Sequence as Processors
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from distill.config import LoraTargets
from distill.models.adapters import add_lora, is_adapter, load_adapter, save_adapter, unwrap
from distill.models.locating import locate
from shared.errors import Error, SourceError
from shared.frozen_models import quiet_transformers
from shared.sources import ResolvedModel

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")  # tables of absolute positions, as models name them


def load_student(
    source: ResolvedModel,
    outputs: int,
    labels: Sequence[str] = (),
    layers: int | None = None,
    dropout: float | None = None,
    lora_rank: int | None = None,
    lora_targets: LoraTargets = "default",
    gradient_checkpointing: bool = False,
    several_labels: bool = False,
) -> Any:
    """Load a transformers classifier in float32 with `outputs` outputs, where 1 makes a regressor.

    With `several_labels` a text may have any number of the labels: transformers' pipeline then takes the sigmoid of
    each logit.

    `labels` become its id2label; `layers` keeps only its first ones; `dropout` replaces every dropout rate of its
    config. A head that the checkpoint lacks starts from torch's current seed. `lora_rank` freezes the encoder and
    gives it low-rank updates (see distill.models.adapters). `gradient_checkpointing` computes each layer twice, and
    keeps only its input between. Raises SourceError, also for a checkpoint that classifies over another number of
    labels.
    """
    with loading(source):
        config = AutoConfig.from_pretrained(source.location, **locate(source))
        if getattr(config, "is_encoder_decoder", False):
            raise SourceError(
                f"the student {source.source} ({config.model_type}) is an encoder-decoder, and is not trained here: "
                "take an encoder (BERT and its like) or a causal language model"
            )
        _check_labels(source, config, outputs)
        if layers is not None:
            if layers > config.num_hidden_layers:
                raise SourceError(f"the student {source.source} has {config.num_hidden_layers} layers, not {layers}")
            config.num_hidden_layers = layers
            if getattr(config, "layer_types", None) is not None:
                config.layer_types = config.layer_types[:layers]
        if dropout is not None:
            replace_dropout(config, dropout)
        config.use_cache = False  # a causal model would keep keys and values for tokens that never come
        config.num_labels = outputs
        kind = "multi_label_classification" if several_labels else "single_label_classification"
        config.problem_type = "regression" if outputs == 1 else kind
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {name: i for i, name in enumerate(labels)}
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            source.location,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            **locate(source),
        )
    if gradient_checkpointing:
        compute_layers_twice(model, source)
    if lora_rank is None:
        return model
    return add_lora(model, source, lora_rank, lora_targets, loaded["missing_keys"])


def replace_dropout(config: Any, dropout: float) -> None:
    """Replace every dropout rate of a model's config."""
    for name, value in vars(config).items():
        # A layerdrop leaves out whole layers.
        if "drop" in name and "layerdrop" not in name and isinstance(value, int | float):
            setattr(config, name, dropout)


def compute_layers_twice(model: Any, source: ResolvedModel) -> None:
    """Let a model keep only the input of each layer for the way back. Raises SourceError where it cannot."""
    if not model.supports_gradient_checkpointing:
        raise SourceError(f"the student {source.source} has no gradient checkpointing: train it without")
    # transformers gave it a new name in 5.2x; the first argument is that of torch's checkpoint
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def load_classifier(source: ResolvedModel) -> Any:
    """Load a classifier as it was saved, in float32; an adapter, on its base model. Raises SourceError."""
    with loading(source):
        if is_adapter(source.location):
            return load_adapter(source)
        return AutoModelForSequenceClassification.from_pretrained(
            source.location, dtype=torch.float32, **locate(source)
        )


def load_tokenizer(source: ResolvedModel) -> Any:
    """Load the fast tokenizer of a model, able to pad and to set two texts apart. Raises SourceError.

    One that puts nothing between the texts of a pair (most causal models' do not) puts its end token there: what is
    saved with the student does the same.
    """
    tokenizer = open_tokenizer(source)
    if tokenizer.eos_token is not None:
        _separate_pairs(tokenizer)
    return tokenizer


def open_tokenizer(source: ResolvedModel) -> Any:
    """Load the fast tokenizer of a model; one without a padding token pads with its end token. Raises SourceError."""
    vocabularies = ("tokenizer.json", "vocab.*", "*.model")
    if source.kind == "folder" and not any(any(Path(source.location).glob(name)) for name in vocabularies):
        # transformers would make one that knows no word
        raise SourceError(f"the student {source.source} has no tokenizer: it needs a tokenizer.json")
    with loading(source):
        tokenizer = AutoTokenizer.from_pretrained(source.location, **locate(source))
    if not tokenizer.is_fast:
        raise SourceError(f"the student {source.source} has no fast tokenizer: it needs a tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise SourceError(f"the student {source.source} has a tokenizer with neither a padding nor an end token")
    return tokenizer


def save_student(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write what inference needs: a whole model as transformers reads it, or an adapter as peft does."""
    with quiet_transformers():
        if unwrap(model) is model:
            model.save_pretrained(folder)
        else:
            save_adapter(model, folder)
        tokenizer.save_pretrained(folder)


def _separate_pairs(tokenizer: Any) -> None:
    one, two = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    if two > one:
        return
    backend, end = tokenizer.backend_tokenizer, (tokenizer.eos_token, tokenizer.eos_token_id)
    between = TemplateProcessing(single="$A", pair=f"$A {end[0]} $B:1", special_tokens=[end])
    before = [] if backend.post_processor is None else [backend.post_processor]
    backend.post_processor = Processors([*before, between])


def count_positions(source: ResolvedModel) -> int | None:
    """Count the positions that a model's config names; None where it names none. Raises SourceError."""
    with loading(source):
        positions = getattr(
            AutoConfig.from_pretrained(source.location, **locate(source)), "max_position_embeddings", None
        )
    return positions if isinstance(positions, int) and positions > 0 else None


def check_fits(model: Any, source: ResolvedModel, tokenizer: Any, length: int, option: str) -> None:
    """Refuse a student that has fewer embeddings than its tokenizer has tokens, or fewer positions than `length`.

    Either would end the training in the middle, at the first text that needs them. `option` sets the length. Raises
    SourceError.
    """
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    embedded = model.get_input_embeddings().num_embeddings
    if tokens > embedded:
        raise SourceError(
            f"the student {source.source} has embeddings of {embedded:,} tokens, and its tokenizer has {tokens:,}: the "
            "two are not of one model. Copy its files again, or take another student"
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in _POSITIONS:
            # RoBERTa counts positions from behind its padding token, OPT from 2.
            before = getattr(module, "offset", None) or (0 if module.padding_idx is None else module.padding_idx + 1)
            if length > module.num_embeddings - before:
                raise SourceError(
                    f"the student {source.source} has {module.num_embeddings - before} positions, and texts may have "
                    f"{length} tokens: give {option} {module.num_embeddings - before}"
                )


def _check_labels(source: ResolvedModel, config: Any, outputs: int) -> None:
    """Refuse a classifier of other labels: its head would be thrown away, which its user may not expect."""
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if is_classifier and config.num_labels != outputs:
        raise SourceError(
            f"the student {source.source} has a head of {config.num_labels} outputs "
            f"({', '.join(map(str, config.id2label.values()))}), and the task needs {outputs}: take the model that it "
            "was trained from"
        )


@contextmanager
def loading(source: ResolvedModel, what: str = "a text classifier") -> Iterator[None]:
    """Turn what transformers raises into a SourceError that says that a model is not `what`."""
    try:
        with quiet_transformers():
            yield
    except Error:
        raise
    except Exception as error:  # its readers raise errors of many kinds at a file that was cut short
        if "trust_remote_code" in str(error) and not source.trusts_code:
            raise SourceError(
                f"the student {source.source} is loaded by Python code of its own, which would run here with all your "
                "rights, and was not run. Read that code, then give --trust-remote-code; or take another student"
            ) from error
        again = f"hf download {source.location} --force-download" if source.kind == "hub" else "copy its files again"
        raise SourceError(
            f"transformers cannot load the student {source.source} as {what}: {error}. If its download was "
            f"cut short: {again}"
        ) from error
