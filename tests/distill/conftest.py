"""What the tests of stage 2 share: a tiny BERT made on the spot, and shard folders as the project writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from shared.schema import Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest
from tests.distill.distill_rows import WORDS, WriteFolder, make_rows, with_answer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers x 32 over a vocabulary of words, saved as transformers saves one."""
    folder = tmp_path_factory.mktemp("tiny") / "bert"
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of 2 layers x 32; its tokenizer adds no special token and has none for padding."""
    folder = tmp_path_factory.mktemp("tiny") / "llama"
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA of 2 layers x 32 that writes: byte-level BPE of about 400 tokens, an end token, a chat template.

    It puts nothing before a text, and has 256 positions. Its weights are large, so that what it writes varies.
    """
    folder = tmp_path_factory.mktemp("tiny") / "generator"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>", "[PAD]"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(
        [f"The {first} is {second}, the answer." for first in WORDS for second in WORDS], trainer
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="[PAD]")
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes data/<task>/teacher=t/ and gives data/<task>/; each list of rows of a split becomes a shard."""

    def write(
        splits: Mapping[str, Sequence[Sequence[Row]]],
        *,
        task: str = "toy",
        kind: str = "classification",
        labels: tuple[str, ...] = ("bad", "good"),
        metric: str = "accuracy",
        target_range: tuple[float, float] | None = None,
        seal: bool = True,
    ) -> Path:
        out = tmp_path / "data" / task
        manifest = Manifest(
            task=task,
            teacher="t",
            kind=kind,
            labels=labels,
            metric=metric,
            recipe={"teacher": "t"},
            source="made by the test",
            target_range=target_range,
        )
        with TeacherFolder.open(out, manifest) as folder:
            for split, shards in splits.items():
                for rows in shards:
                    folder.append(split, rows)
                    if seal:
                        folder.seal(split)
        return out

    return write


@pytest.fixture
def toy(write_folder: WriteFolder) -> Path:
    """A classification task with train (3 shards), validation (not asked) and test."""
    train = make_rows(96)
    return write_folder(
        {
            "train": [train[:40], train[40:70], train[70:]],
            "validation": [[with_answer(r, status=Status.UNASKED, embedding=None) for r in make_rows(40, 1)]],
            "test": [[with_answer(r, status=Status.UNASKED, embedding=None) for r in make_rows(30, 2)]],
        }
    )
