"""The `distill` command."""

from pathlib import Path
from typing import Annotated, cast

import typer

from distill.config import (
    DEFAULT_STUDENT,
    Column,
    Control,
    Decay,
    DistillConfig,
    LoraTargets,
    Loss,
    Precision,
    Schedule,
    Semantics,
    Soft,
    TeacherDecay,
)
from shared.console import command, print_json, say
from shared.errors import require_extra

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stage 2: train a text-only student from a shard folder. Opens no connection to a teacher.",
)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]


@app.callback()
def main_options() -> None:
    """Make every command a named one, even where there is only one."""


@app.command()
@command
def run(
    shards: Annotated[
        list[Path],
        typer.Option(
            help="data/<task>/, or data/<task>/teacher=<name>/; may be repeated: further teachers of the same examples."
        ),
    ],
    teacher: Annotated[str | None, typer.Option(help="Which teacher's answers, where the task has several.")] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            help="embedding, label_logprobs or reply: what the teacher's vector is made of; may be repeated. "
            "The embedding, unless given."
        ),
    ] = None,
    reply_encoder: Annotated[
        str, typer.Option(help="The frozen text encoder of --vectors reply: a hub id, a folder, or pkg://module/path.")
    ] = DEFAULT_STUDENT,
    student: Annotated[str, typer.Option(help="A hub id, a folder, or pkg://module/path.")] = DEFAULT_STUDENT,
    student_layers: Annotated[
        int | None,
        typer.Option(help="Keep only the student's first layers: 6 of bert-base-uncased is BERT-6L."),
    ] = None,
    frozen_layers: Annotated[
        int | None,
        typer.Option(help="Leave the embeddings and this many first layers as they are, computed once a text."),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option("--lora", metavar="RANK", help="Train low-rank updates of this rank, and not the encoder itself."),
    ] = None,
    lora_targets: Annotated[
        LoraTargets, typer.Option(help="Which layers they update: those peft knows for the architecture, or all.")
    ] = "default",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for the student, a second forward pass.")
    ] = False,
    loss: Annotated[Loss, typer.Option(help="L_m, which brings the student to the teacher's vectors.")] = "euclid",
    soft: Annotated[
        Soft,
        typer.Option(help="Soft targets from the aligner, or kl: the teacher's own label distribution."),
    ] = "aligner",
    semantics: Annotated[
        Semantics, typer.Option(help="Modules and losses as in the paper, or as in its authors' code.")
    ] = "paper",
    undistilled: Annotated[
        bool,
        typer.Option("--undistilled", help="Plain fine-tuning: the same as --loss none --alpha 0 --gamma 0."),
    ] = False,
    alpha: Annotated[float, typer.Option(help="Weight of the teacher's soft targets against the labels.")] = 0.5,
    beta: Annotated[float, typer.Option(help="Weight of L_m.")] = 1.0,
    gamma: Annotated[float, typer.Option(help="Weight of the auxiliary heads.")] = 1.0,
    tau: Annotated[float, typer.Option(help="Temperature of the soft targets.")] = 5.0,
    contrastive_temperature: Annotated[float, typer.Option(help="Temperature of --loss contrastive.")] = 0.1,
    teacher_decay: Annotated[
        TeacherDecay, typer.Option(help="Let alpha and beta fall to 0 over the run: in a line, or a half cosine.")
    ] = "none",
    control: Annotated[
        Control, typer.Option(help="Put what knows nothing in the teacher's place: see docs/method.md.")
    ] = "none",
    schedule: Annotated[
        Schedule,
        typer.Option(help="A pass of the aligner, then one of the student; or a step of each in turn."),
    ] = "two-pass",
    epochs: Annotated[int, typer.Option()] = 10,
    batch_size: Annotated[int, typer.Option()] = 32,
    labels: Annotated[
        int | None,
        typer.Option(help="Keep this many labels of the training split, chosen by seed; hide the rest."),
    ] = None,
    labelled_per_batch: Annotated[
        int | None, typer.Option(help="Labelled rows in each batch; as they come, unless given.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens a text is cut to.")] = 128,
    student_lr: Annotated[float, typer.Option(help="The student's learning rate.")] = 2e-5,
    aligner_lr: Annotated[float, typer.Option(help="The aligner's learning rate.")] = 3e-3,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the student's rate rises.")] = 0.0,
    decay: Annotated[Decay, typer.Option(help="linear lets the student's rate fall to 0 at the last step.")] = "none",
    aligner_pretraining: Annotated[
        int, typer.Option(help="Passes of the aligner over the labelled vectors before the first epoch.")
    ] = 0,
    dropout: Annotated[float | None, typer.Option(help="In place of the student's own dropout.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bfloat16 where the hardware computes it natively.")
    ] = "auto",
    buffer_rows: Annotated[int, typer.Option(help="Rows in memory at a time.")] = 16384,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the student between checkpoints; every five minutes, unless given."),
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option("--tracker", help="tensorboard, wandb or trackio: log the epochs there, too; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; <task>-<variant>-s<seed> unless given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one student; write runs/<name>/ with metrics.json, student/ (which transformers loads), aligner and log.

    A run that was stopped goes on from its last checkpoint when the same command is given again.
    """
    if undistilled:
        loss, alpha, gamma = "none", 0.0, 0.0
    config = DistillConfig(
        shards=shards[0],
        further_shards=tuple(shards[1:]),
        teacher=teacher,
        vectors=cast(tuple[Column, ...], tuple(vectors or ())),  # the config checks them
        reply_encoder=reply_encoder,
        student=student,
        student_layers=student_layers,
        frozen_layers=frozen_layers,
        lora_rank=lora_rank,
        lora_targets=lora_targets,
        gradient_checkpointing=gradient_checkpointing,
        loss=loss,
        soft=soft,
        semantics=semantics,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        tau=tau,
        contrastive_temperature=contrastive_temperature,
        teacher_decay=teacher_decay,
        control=control,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        labelled_per_batch=labelled_per_batch,
        labels=labels,
        max_length=max_length,
        student_lr=student_lr,
        aligner_lr=aligner_lr,
        warmup=warmup,
        decay=decay,
        aligner_pretraining=aligner_pretraining,
        dropout=dropout,
        seed=seed,
        device=device,
        precision=precision,
        buffer_rows=buffer_rows,
    )
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.run import run_distillation

    folder, metrics = run_distillation(config, out, name, overwrite, checkpoint_steps, trackers or ())
    if as_json:
        print_json({"run": str(folder), **metrics})
    else:
        test = "" if metrics["test"] is None else f", test {metrics['test']:.4f}"
        say(
            f"{folder}: {metrics['metric']} dev {metrics['dev_best']:.4f} (epoch {metrics['best_epoch']}; last "
            f"{metrics['dev_last']:.4f}){test}, {metrics['examples_per_second']:.0f} rows a second"
        )


@app.command()
@command
def compare(
    plan: Annotated[
        Path | None, typer.Argument(help="A YAML file: see docs/compare.md. Options stand over its keys.")
    ] = None,
    shards: Annotated[Path | None, typer.Option(help="data/<task>/, or data/<task>/teacher=<name>/.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Which teacher's answers, where the task has several.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of all runs, as in distill.config; repeatable."),
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=V1,V2", help="Values that the validation split chooses among; repeatable."),
    ] = None,
    labels: Annotated[
        list[int] | None, typer.Option(help="Keep this many labels; may be repeated. All, unless given.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated; 0 to 4 unless given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of one thread each; one a core, unless given.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Pictures of the test rows, as harvest show --images writes them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The comparison's name; the plan's, unless given.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train cells of other settings again, in place of an error.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Did the teacher help, or was it regularisation? Variants over seeds, with controls, tests and one HTML report.

    A comparison that was stopped goes on when the same command is given again: finished cells stay.
    """
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    from distill.compare.plan import make_plan
    from distill.compare.run import run_comparison

    given = {"shards": shards, "teacher": teacher, "labels": labels, "seeds": seed, "workers": workers, "name": name}
    chosen = make_plan(plan, option or (), choose or (), {k: v for k, v in given.items() if v is not None})
    folder, result = run_comparison(chosen, out, images, overwrite)
    if as_json:
        print_json({"comparison": str(folder), **result})
    else:
        say(f"{result['verdict']}\n{folder / 'report.html'}")


@app.command("eval")
@command
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/.")],
    shards: Annotated[Path | None, typer.Option(help="Score on these shards; those of the run, unless given.")] = None,
    split: Annotated[str, typer.Option(help="The split to score on.")] = "validation",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bfloat16 where the hardware computes it natively.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Score a trained student again."""
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.scoring.predict import evaluate_run

    result = evaluate_run(run_folder, shards, split, device, precision)
    if as_json:
        print_json(result)
    else:
        say(f"{run_folder}: {result['metric']} {result['score']:.4f} on {result['rows']:,} rows of {split}")


@app.command()
@command
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/.")],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
) -> None:
    """Write a trained student as one model folder: merged weights, tokenizer, card. transformers alone loads it."""
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.runs.export import export_run

    export_run(run_folder, target)
    say(f"{target}: loads with AutoModelForSequenceClassification.from_pretrained")


@app.command()
@command
def push(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A model repository of the hub: name, or owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private, where it is new.")] = False,
) -> None:
    """Export a trained student to the Hugging Face hub, with the token in HF_TOKEN."""
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.runs.export import push_run

    say(f"{run_folder} is now {push_run(run_folder, repo, private)}")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":  # torchrun -m distill.cli
    main()
