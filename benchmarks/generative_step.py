"""How long a training step of a student that writes takes, and its memory, beside whole logits and TRL's SFTTrainer.

    python benchmarks/generative_step.py --size 135m --json

Each case runs in a process of its own, on random weights and the same random rows: a prompt, and a reply that is
learnt. The cases take turns, `--rounds` times; the fastest round counts, because all that else runs only adds. Beside
the seconds of a step stand those of the processor (all threads together), which others on the machine change less;
beside the peak of memory, the part of it that is no state: weights, and the trained ones' gradients and two moments.

    chunked      this project's step: logits of reply positions only, some at a time (distill.losses.tokens)
    whole        the same terms and optimiser over the logits of all positions, by autograd
    trl          trl.SFTTrainer on the same rows with its own defaults, but for the same batch, rate and precision
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from distill.compute.devices import choose_device
from distill.compute.memory import keep_freed_memory
from distill.data.sequences import PLACES, Dialogue, make_sequences
from distill.losses.tokens import TokenTargets, diverge, sum_losses
from distill.models.adapters import add_causal_lora
from distill.models.generator import Generator
from distill.models.orthogonal import make_optimizer
from distill.training.step import take_step
from shared.sources import ResolvedModel
from shared.topk import TopK

# Layers, width, heads, heads of keys, width of the inner layer, vocabulary; those of SmolLM2-135M and LLaMA-3.2-1B.
SIZES = {
    "tiny": (2, 64, 4, 2, 128, 4096),
    "135m": (30, 576, 9, 3, 1536, 49152),
    "1b": (16, 2048, 32, 8, 8192, 128256),
}
CASES = (
    *("chunked nll", "trl nll", "whole nll", "chunked kl20", "whole kl20", "chunked kl50", "whole kl50"),
    *("chunked nll lora", "trl nll lora", "chunked kl20 lora"),
)
RANK = 8
RATE = 1e-5


@dataclass(frozen=True, slots=True)
class Rows:
    """So many rows of a prompt and a reply, each of so many tokens."""

    rows: int
    prompt: int
    reply: int


def make_model(size: str, *, lora: bool) -> Any:
    """Make random weights of a LLaMA, in float32."""
    layers, width, heads, keys, inner, vocabulary = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        intermediate_size=inner,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    return add_causal_lora(model, ResolvedModel("random", "", None, "folder"), RANK, "default") if lora else model


def make_batch(size: str, rows: Rows, k: int, seed: int) -> dict[str, Tensor]:
    """Make a batch of random ids, with a random top K where k is not 0."""
    rng, vocabulary = np.random.default_rng(seed), SIZES[size][5]
    dialogues = []
    for _ in range(rows.rows):
        ids = rng.integers(3, vocabulary, rows.prompt + rows.reply)
        top = None
        if k:
            logits = rng.normal(scale=2, size=(rows.reply, k + 1))
            logprobs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
            named = np.stack([rng.choice(vocabulary, k, replace=False) for _ in range(rows.reply)]).astype(np.int32)
            top = TopK(named, logprobs[:, :k], logprobs[:, k])
        dialogues.append(Dialogue(ids[: rows.prompt].tolist(), ids[rows.prompt :].tolist(), top))
    return make_sequences(dialogues).collate(0)


def make_targets(batch: dict[str, Tensor], k: int) -> TokenTargets:
    """Make a mean over the replies' tokens, of the divergence where there is a top K, else of the likelihood."""
    share = 1 / batch["counts"][0].float()
    weight = share.expand(len(batch["said"]))
    none = torch.zeros_like(weight)
    return TokenTargets(
        batch["said"],
        none if k else weight,
        batch["top_ids"],
        batch["top_logprobs"],
        batch["tail"],
        weight if k else none,
        none,
    )


def whole_loss(logits: Tensor, batch: dict[str, Tensor], k: int) -> Tensor:
    """Give the same loss of the logits of all positions (n, t, V), by autograd alone."""
    logprobs = logits.float().log_softmax(-1).flatten(0, 1)[batch[PLACES]]
    if not k:
        return nn.functional.nll_loss(logprobs, batch["said"])
    ids = batch["top_ids"].long()
    rest = logprobs.scatter(1, ids, -torch.inf).logsumexp(1)
    student = torch.cat([logprobs.gather(1, ids), rest[:, None]], 1)
    teacher = torch.cat([batch["top_logprobs"], batch["tail"][:, None]], 1)
    return diverge(teacher, student, "forward-kl").mean()


class StepTime(NamedTuple):
    """What a step took: seconds, and seconds of the processor."""

    seconds: float
    processor: float

    @classmethod
    def now(cls) -> "StepTime":
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def end(self) -> "StepTime":
        """Give what both clocks have gone on by since."""
        return StepTime(time.perf_counter() - self.seconds, time.process_time() - self.processor)


class CaseCost(NamedTuple):
    """What each step took, and the bytes of weights, and of the trained ones' gradients and moments."""

    steps: list[StepTime]
    state: int


def count_state(model: nn.Module) -> int:
    """Count the bytes that a model, its gradients and AdamW's moments take, whatever is computed."""
    return sum(each.nbytes * (4 if each.requires_grad else 1) for each in model.parameters())


def time_own(case: str, size: str, rows: Rows, steps: int, precision: Any) -> CaseCost:
    """Time this project's steps, or those over whole logits."""
    device = choose_device("auto", precision)
    k = int(case.split()[1].removeprefix("kl")) if "kl" in case else 0
    student = Generator(make_model(size, lora="lora" in case)).to(device.device)
    optimizer = make_optimizer(student, RATE)
    batches = [make_batch(size, rows, k, seed) for seed in range(steps + 1)]
    student.train()
    taken = []
    for made in batches:
        batch = {name: tensor.to(device.device) for name, tensor in made.items()}
        started = StepTime.now()
        with device.autocast():
            if case.startswith("chunked"):
                hidden = student(batch["input_ids"], batch["attention_mask"]).flatten(0, 1)[batch[PLACES]]
                loss = sum_losses(hidden, student.head, make_targets(batch, k), "forward-kl").total
            else:
                inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
                loss = whole_loss(student.model(**inputs).logits, batch, k)
        take_step(student, optimizer, loss)
        loss.item()
        taken.append(started.end())
    return CaseCost(taken[1:], count_state(student))


def time_trl(case: str, size: str, rows: Rows, steps: int, precision: Any) -> CaseCost:
    """Time the steps of TRL's trainer on the same rows."""
    import tempfile

    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    taken: list[StepTime] = []

    class Clock(TrainerCallback):
        """Notes how long each step took."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = StepTime.now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(self.started.end())

    device = choose_device("auto", precision)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "<pad>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>")
    table: dict[str, list[Any]] = {"input_ids": [], "completion_mask": []}
    for seed in range(steps + 1):
        table["input_ids"] += make_batch(size, rows, 0, seed)["input_ids"].tolist()
        table["completion_mask"] += [[0] * rows.prompt + [1] * rows.reply] * rows.rows
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=rows.rows,
            learning_rate=RATE,
            bf16=device.half == torch.bfloat16,
            use_cpu=device.device.type == "cpu",
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            max_length=None,
            completion_only_loss=True,
            dataloader_pin_memory=False,
        )
        model = make_model(size, lora="lora" in case)
        SFTTrainer(
            model,
            args=config,
            train_dataset=Dataset.from_dict(table),
            processing_class=tokenizer,
            callbacks=[Clock()],
        ).train()
    return CaseCost(taken[1:], count_state(model))


def measure(case: str, size: str, rows: Rows, steps: int, precision: Any) -> dict[str, Any]:
    """Measure one case in this process: the seconds of its median step, and its peak memory in bytes.

    On a CPU the peak is that of the process, less what it had before there was a model.
    """
    keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken, state = (time_trl if case.startswith("trl") else time_own)(case, size, rows, steps, precision)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    seconds, processor = (median(column) for column in zip(*taken, strict=True))
    return {
        "case": case,
        "seconds": seconds,
        "processor_seconds": processor,
        "peak": peak,
        "beside_state": peak - state,
    }


def main() -> None:
    """Run the cases in turn, each in a process, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=96)
    parser.add_argument("--reply", type=int, default=160)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = Rows(given.rows, given.prompt, given.reply)
    if given.child:
        print(json.dumps(measure(given.case[0], given.size, rows, given.steps, given.precision)))
        return
    best: dict[str, dict[str, Any]] = {}
    for _ in range(given.rounds):
        for case in given.case or CASES:
            command = [sys.executable, __file__, "--child", "--case", case, "--size", given.size]
            command += ["--precision", given.precision, "--steps", str(given.steps)]
            command += ["--rows", str(rows.rows), "--prompt", str(rows.prompt), "--reply", str(rows.reply)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            known = best.setdefault(case, found)
            best[case] = {name: found[name] if name == "case" else min(found[name], known[name]) for name in found}
    report(best, rows, as_json=given.json)


def report(best: dict[str, dict[str, Any]], rows: Rows, *, as_json: bool) -> None:
    """Print what was measured: tokens a second count the prompt's too."""
    tokens = rows.rows * (rows.prompt + rows.reply)
    for each in best.values():
        each["tokens_per_second"] = tokens / each["seconds"]
    if as_json:
        print(json.dumps({"rows": vars_of(rows), "cases": list(best.values())}, indent=1))
        return
    for each in best.values():
        line = f"{each['case']:20} {each['seconds']:8.3f} s  {each['processor_seconds']:8.3f} s of the processor"
        line += f"  {each['tokens_per_second']:10.0f} tokens/s"
        print(f"{line}  {each['peak'] / 1e6:8.0f} MB, {each['beside_state'] / 1e6:8.0f} MB beside the state")


def vars_of(rows: Rows) -> dict[str, int]:
    """Give the numbers of rows and tokens by name."""
    return {"rows": rows.rows, "prompt": rows.prompt, "reply": rows.reply}


if __name__ == "__main__":
    main()
