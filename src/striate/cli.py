"""The command: one function per verb. Parse, call the library function of the same name, print."""

import dataclasses
import inspect
import json
import os
import shlex
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from striate.errors import DONE, DataError, StriateError, UserError, nearest, printable

HELP = """striate: train, evaluate and explain ImageNet-style image classifiers

  striate train DATA         train, or go on where the same command was stopped
  striate evaluate RUN…      score a run (or a network with --weights): top-1, top-5, interval, per class; compare, combine
  striate predict RUN PHOTO… name what is in photos
  striate submit RUN TESTDIR write, check or score a challenge's submission: ILSVRC as Kaggle takes it, or Tiny ImageNet
  striate explain RUN PHOTO… show where it looked: heatmaps over photos, or over mistakes and right answers of a labelled set
  striate localize RUN       say where the object is: boxes from heatmaps or a trained head, scored as ILSVRC did
  striate doctor DATA|RUN    say why a network does not learn: before a training, or after it
  striate report RUN…        one offline HTML page about a run, or about several side by side
  striate runs               which runs there are, how far each is, and its best top-1
  striate measure NETWORK…   what networks cost and see: parameters, MACs, memory, receptive field, latency
  striate data audit DATA    say what is wrong with a data set: files, labels, classes, boxes, duplicates
  striate data pack DATA PACK  store a data set again, for fast reading: a few large files of small images
  striate data make DIR      write a rendered data set in the layout of a real one
  striate data show DATA     draw what training makes of some photos, before anyone trains
  striate VERB --help        all options of a verb

DATA is a folder (class folders, ILSVRC, Tiny ImageNet, CIFAR or MNIST as they ship, parquet or tar files, a pack), a file
(.csv, .jsonl, .parquet, .tar), or the word builtin.
Exit codes: 0 done, 1 bug, 2 usage, 3 data, 4 checkpoint, 5 non-finite, 6 resources, 75 saved: run the same command again,
130 interrupted before there was anything to save.
"""

Arguments = TypeVar("Arguments")


def main() -> None:
    """The entry point of the `striate` command."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code; no traceback reaches the user except for a bug."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(HELP, end="")
        return DONE if argv else 2
    if argv[0] in {"-V", "--version"}:
        from importlib import metadata

        print(metadata.version("striate"))
        return DONE
    verb = VERBS.get(argv[0])

    def answer(said: str, code: int | str | None) -> None:
        if "--json" in argv and _answers():
            try:
                print(json.dumps({"error": said, "exit_code": code}), flush=True)
            except BrokenPipeError:  # Ctrl-C ends the reader, too
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    try:
        if verb is None:
            raise UserError(f"striate has no verb '{argv[0]}'.{nearest(argv[0], VERBS)} Verbs: {', '.join(VERBS)}.")
        return verb(argv[1:])
    except StriateError as error:
        if _answers() or not error.is_shared:
            print(f"striate: {printable(str(error))}", file=sys.stderr)
        answer(str(error), error.exit_code)
        return error.exit_code
    except SystemExit as error:  # the parser of options has said what is wrong
        if error.code:
            answer("a wrong option or value; standard error says which", error.code)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        return DONE
    except KeyboardInterrupt:
        print("striate: interrupted before there was anything to save.", file=sys.stderr)
        answer("interrupted before there was anything to save", 130)
        return 130
    except Exception as error:
        traceback.print_exc()
        print(
            "\nstriate: this is a bug in striate, not a mistake of yours. Please report it with the lines above, the command\n"
            f"  {shlex.join(['striate', *argv])}\nand the versions in the run's environment.json.",
            file=sys.stderr,
        )
        answer(f"a bug in striate, {type(error).__name__}: {error}", 1)
        return 1


def _answers() -> bool:
    """Whether this process gives the answer for machines: of several that torchrun started, the first does."""
    return os.environ.get("RANK", "0") == "0"


def _parse(kind: type[Arguments], argv: list[str], verb: str, description: str) -> Arguments:
    import tyro

    return tyro.cli(kind, args=argv, prog=f"striate {verb}", description=description)


def _parse_recipe(kind: type[Arguments], argv: list[str], verb: str, description: str) -> tuple[Arguments, dict[str, Any]]:
    """As `_parse`, for a verb with the six groups of a recipe. Returns the recipe fields that were typed as well."""
    try:
        given = _parse(kind, argv, verb, description)
    except SystemExit as error:
        if error.code:
            _hint(argv, list(inspect.signature(kind).parameters))
        raise
    split = [(name, *name.split(".")) for name in _typed_fields(argv)]
    return given, {name: getattr(getattr(given, group), field) for name, group, field in split}


# ---------------------------------------------------------------- train


def train(argv: list[str]) -> int:
    """Train a classifier on DATA, or go on with the run that the same command began."""
    began = time.monotonic()
    import tyro

    from striate import recipe as recipes
    from striate.recipes import catalog

    options, argv = _builder_options(argv)
    named = _value_of(argv, "--recipe")
    shown = catalog.find(named) if named else recipes.Recipe()

    @dataclass(frozen=True)
    class Train:
        # A folder, a file that is a set by itself (.csv, .jsonl, .parquet, .tar), or the word builtin; see docs/data.md.
        images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
        # Where to start from: a name, or a recipe.json. Recipes: see docs/recipes.md.
        recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
        # The folder that runs are made in.
        out: Path = Path("runs")
        # The run's folder; by default data, model and six digits of the recipe.
        name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
        # Start beside an existing run of that name.
        new: tyro.conf.FlagCreatePairsOff[bool] = False
        # Accept a difference to an existing run's recipe; repeat it for several.
        override: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="GROUP.FIELD")] = ()
        # Go on although images were added, removed or changed.
        accept_data_change: tyro.conf.FlagCreatePairsOff[bool] = False
        # Save and exit with 75 before this much time has passed: 90s, 15m, 11h30m.
        stop_after: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None
        # Threads that read images, or processes:N; auto is one thread fewer than the cores, at least one.
        workers: str = "auto"
        # auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # A folder on another disk: each checkpoint is copied there too, and a new machine goes on from it.
        mirror: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
        # Show it in tensorboard, wandb or mlflow as well; repeat it for several.
        track: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
        # Train so many networks, NAME-1 to NAME-M, with seeds one apart; then score the mean of what they say.
        members: Annotated[int, tyro.conf.arg(metavar="M")] = 1
        # Look for what keeps it from learning, before the first step and on the way.
        doctor: bool = True
        # Train nothing: measure for some seconds and say what it would take, what holds it up and what to change.
        plan: tyro.conf.FlagCreatePairsOff[bool] = False
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        # The network.
        model: recipes.ModelGroup = shown.model
        # The images: how they are read and what the network sees of them.
        data: recipes.DataGroup = shown.data
        # What training does to each image.
        augment: recipes.AugmentGroup = shown.augment
        # What is minimised.
        loss: recipes.LossGroup = shown.loss
        # How it is minimised.
        optim: recipes.OptimGroup = shown.optim
        # How long: one of epochs, steps and time.
        budget: recipes.BudgetGroup = shown.budget

    given, changes = _parse_recipe(Train, argv, "train", train.__doc__ or "")
    changes |= options
    from striate import sitting

    request = sitting.Request(
        data=given.images,
        recipe=given.recipe,
        changes=changes,
        out=given.out,
        name=given.name,
        new=given.new,
        override=given.override,
        accept_data_change=given.accept_data_change,
        stop_after=given.stop_after,
        workers=given.workers,
        device=given.device,
        command=shlex.join(["striate", "train", *sys.argv[2:]]),
        mirror=given.mirror,
        track=given.track,
        doctor=given.doctor,
    )
    if given.plan:
        forecast = sitting.plan(request)
        print("\n".join(forecast.describe()))
        if given.json:
            print(json.dumps({"plan": forecast.to_json()}))
        return DONE
    if given.members != 1:
        from striate import ensemble

        trained = ensemble.sit(request, given.members, began=began)
        print("\n".join(map(printable, trained.lines())))
        if given.json and _answers():
            together = trained.together
            said = {"folder": str(together.folder), **together.summary} if together is not None else None
            runs = [str(run.path) for run in trained.runs]
            _print_json({"runs": runs, "exit_code": trained.exit_code, "together": said})
        return trained.exit_code
    run_folder, exit_code = sitting.sit(request, began=began)
    if given.json and _answers():
        print(
            json.dumps(
                {"run": str(run_folder.path), "exit_code": exit_code, "status": run_folder.status, "best": run_folder.best}
            )
        )
    return exit_code


def _builder_options(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Takes `--model.options.KEY VALUE` out of the arguments. Returns {"model.options.KEY": value} and the rest."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    place = 0
    while place < len(argv):
        word = argv[place]
        if word.startswith("--model.options."):
            name, equals, value = word.removeprefix("--").partition("=")
            if not equals:
                place += 1
                if place >= len(argv):
                    raise UserError(f"--{name}: expected a value after it.")
                value = argv[place]
            found[name.replace("-", "_")] = value
        else:
            rest.append(word)
        place += 1
    return found, rest


def _value_of(argv: list[str], option: str) -> str | None:
    """The value of an option that decides how the rest is parsed; None where it is absent."""
    for place, word in enumerate(argv):
        if word == option and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return None


def _hint(argv: list[str], options: list[str]) -> None:
    """Names the nearest recipe field for each unknown option; the parser misses those typed without their group."""
    from striate import recipe as recipes

    for word in argv:
        name = word.partition("=")[0].removeprefix("--no-").removeprefix("--").replace("-", "_")
        if word.startswith("--") and name not in options:
            try:
                recipes.full_name(name)
            except UserError as error:
                print(f"striate: {printable(str(error))}", file=sys.stderr)


def _typed_fields(argv: list[str]) -> list[str]:
    """The recipe fields that were typed, as "group.field", in the order of the recipe."""
    from striate import recipe as recipes

    short = recipes.short_names()
    known = recipes.field_names()
    typed = set()
    for word in argv:
        if not word.startswith("-"):
            continue
        name = word.partition("=")[0].lstrip("-")
        group, dot, inner = name.rpartition(".")
        for plain in (name, group + dot + inner.removeprefix("no-")):
            plain = short.get(plain.replace("_", "-"), plain.replace("-", "_"))
            if plain in known:
                typed.add(plain)
    return [name for name in known if name in typed]


# ---------------------------------------------------------------- doctor


def doctor(argv: list[str]) -> int:
    """Say why a network does not learn: DATA with a model or a recipe before a training, a RUN after it, or a --log."""
    import tyro

    from striate import recipe as recipes
    from striate.recipes import catalog

    options, argv = _builder_options(argv)
    named = _value_of(argv, "--recipe")
    shown = catalog.find(named) if named else recipes.Recipe()

    @dataclass(frozen=True)
    class Doctor:
        # A folder or file of images as for train, or the word builtin; or a run folder. Nothing with --log.
        place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA|RUN")] = ""
        # A table of any framework instead: a CSV with epoch or step, loss, val_loss, accuracy.
        log: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
        # With --log: how many classes there are, where the table does not show it.
        classes: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
        # Where to start from: a name, or a recipe.json. Recipes: see docs/recipes.md.
        recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
        # Most time for the examination: 30s, 2m.
        limit: Annotated[str, tyro.conf.arg(metavar="TIME")] = "60s"
        # Apply remedies one at a time, each in a new run NAME-fix-N, until nothing more is found; then train.
        fix: tyro.conf.FlagCreatePairsOff[bool] = False
        # The folder that runs of --fix are made in; that of the run by default, else runs.
        out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
        # NAME of the runs of --fix; by default that of the run, or data, model and six digits of the recipe.
        name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
        # Threads that read images, or processes:N.
        workers: str = "auto"
        # auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        # The network.
        model: recipes.ModelGroup = shown.model
        # The images: how they are read and what the network sees of them.
        data: recipes.DataGroup = shown.data
        # What training does to each image.
        augment: recipes.AugmentGroup = shown.augment
        # What is minimised.
        loss: recipes.LossGroup = shown.loss
        # How it is minimised.
        optim: recipes.OptimGroup = shown.optim
        # How long: one of epochs, steps and time.
        budget: recipes.BudgetGroup = shown.budget

    given, changes = _parse_recipe(Doctor, argv, "doctor", doctor.__doc__ or "")
    changes |= options
    if bool(given.place) == (given.log is not None):
        raise UserError("doctor: give DATA, a run folder, or --log FILE.csv, one of them.")
    from striate import consultation, sitting

    limit_s = recipes.seconds(given.limit)
    if given.log is not None:
        if given.fix or changes or given.recipe:
            raise UserError("doctor --log looks at a table alone: leave out --fix, --recipe and the recipe's options.")
        found = consultation.of_table(given.log, given.classes)
        print(found)
        if given.json:
            _print_json(found.to_json())
        return DONE
    if consultation.is_run(given.place):
        if changes or given.recipe:
            raise UserError(
                f"doctor {given.place}: a run has its recipe; leave out {', '.join(changes) or '--recipe'}, or give DATA."
            )
        from striate.run.folder import open_run

        request = consultation.request_of(open_run(given.place), given.workers, given.device)
        found = consultation.of_run(given.place, limit_s, workers=given.workers, device=given.device)
    else:
        request = sitting.Request(
            data=given.place, recipe=given.recipe, changes=changes, workers=given.workers, device=given.device
        )
        found = consultation.of_data(request, limit_s)
    print(found)
    fixes = []
    if given.fix:
        request = consultation.named_as_run(
            dataclasses.replace(request, out=given.out or request.out, name=given.name or request.name)
        )
        for made in consultation.fix(request, found, limit_s):
            fixes.append(made)
            flags = " ".join(f"{name} {value}" for name, value in made.changes.items())
            print(f"\n{made.run} (parent {made.parent}, for {made.finding}): {flags}")
            print(printable(made.advice) if made.exit_code is not None else f"{made.advice}\n{made.found}")
    if given.json:
        _print_json(found.to_json() | {"fixes": [{"run": str(one.run), **one.to_json()} for one in fixes]})
    return fixes[-1].exit_code or DONE if fixes else DONE


def _print_json(plain: dict[str, Any]) -> None:
    """One strict JSON object on one line."""
    from striate.files import to_json

    print(to_json(plain, indent=None))


# ---------------------------------------------------------------- evaluate, predict, report, runs


@dataclass(frozen=True)
class _Scoring:
    # best, last or step-N, of a run; for evaluate also snapshots, all of them and their mean.
    checkpoint: str = "best"
    # Take the raw weights where there are averaged ones (EMA).
    raw: bool = False
    # fp32 for the reference numbers, bf16 or fp16 for speed, auto for what is fast here.
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    # auto, cpu, cuda, cuda:N or mps.
    device: str = "auto"
    # Threads that read images, or processes:N.
    workers: str = "auto"


def evaluate(argv: list[str]) -> int:
    """Score runs, networks with --weights, or evaluations that were saved; compare several, or let them answer together."""
    import tyro

    @dataclass(frozen=True)
    class Evaluate(_Scoring):
        # Run folders, the name of a network, or folders of evaluations, which are scored again without their network.
        networks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL|EVALUATION…")] = ()
        # Labelled images; by default the run's own validation set.
        data: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None
        # Which split of the data; by default the validation set.
        split: Annotated[Literal["train", "val", "test"] | None, tyro.conf.arg(metavar="train|val|test")] = None
        # A run trained with --data.colour grey, for the images that show no colour.
        grey: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
        # How each image is looked at: center, flip, 10crop, 3scale, 144crop, dense, two of them joined by +, or a JSON file.
        views: str = "center"
        # What is averaged over the views: probabilities, as the papers did, or logits.
        average: Literal["probabilities", "logits"] = "probabilities"
        # Other labels (.json as ImageNet ReaL, or .csv), or a list of images to leave out (.txt); repeat it for several.
        labels: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="original|FILE")] = ()
        # Of several: whether the difference to the first one means anything.
        compare: tyro.conf.FlagCreatePairsOff[bool] = False
        # Let several answer together: the mean of probabilities or logits, or weights chosen on half of the images.
        combine: Literal["arithmetic", "geometric", "weighted", "stacking", "greedy"] | None = None
        # Of several: keep the images that all of them scored.
        common: tyro.conf.FlagCreatePairsOff[bool] = False
        # Fit the temperature of one network on half of the images, and keep it with its run.
        calibrate: tyro.conf.FlagCreatePairsOff[bool] = False
        # Weights for a network by name: a file, default (the published ones) or the name of a published set.
        weights: Annotated[str | None, tyro.conf.arg(metavar="FILE|default|NAME")] = None
        # Side of the input for a network by name, in pixels; by default what the weights were made for.
        img_size: Annotated[int | None, tyro.conf.arg(metavar="PX")] = None
        # Compile the network first: faster for many images, after a wait of up to a minute.
        compile: tyro.conf.FlagCreatePairsOff[bool] = False
        # Score on data that has a part of the network's classes.
        subset: tyro.conf.FlagCreatePairsOff[bool] = False
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Evaluate, argv, "evaluate", evaluate.__doc__ or "")
    if not given.networks:
        raise UserError("evaluate: give a run folder, such as runs/demo, or the name of a network with --weights.")
    is_of_snapshots = given.checkpoint == "snapshots"
    several = given.compare or given.combine is not None or is_of_snapshots
    if several and len(given.networks) < 2 and not is_of_snapshots:
        raise UserError(f"evaluate {given.networks[0]}: --compare and --combine go with two or more runs or evaluations.")
    if given.calibrate and (len(given.networks) > 1 or is_of_snapshots):
        raise UserError("--calibrate: a temperature is of one network; give one run or evaluation.")
    from striate.evaluate import open as opened
    from striate.evaluate import saved, together

    if several and given.labels:
        raise UserError(
            "--labels goes with one run or evaluation: combine first, and score the folder that is written by other labels; "
            "a comparison is by the data set's own."
        )
    if given.common and given.combine is None:
        raise UserError("--common goes with --combine.")
    if all(map(saved.is_saved, given.networks)):
        names = ("views", "average", "data", "split", "grey", "weights", "img_size", "compile", "checkpoint", "raw")
        typed = [name for name in names if getattr(given, name) != getattr(Evaluate, name)]
        if typed:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in typed)
            raise UserError(f"{given.networks[0]}: {flags}: a saved evaluation is as it was made. Give the run to look again.")
    from striate.evaluate.score import headline, parts_line

    scored: list[tuple[Any, Path]] = []
    looked_at = [
        (network, checkpoint)
        for network in given.networks
        for checkpoint in (opened.snapshots(network) if is_of_snapshots else (given.checkpoint,))
    ]
    for network, checkpoint in looked_at:
        if not saved.is_saved(network):
            summary, folder = opened.evaluate(
                network,
                given.data,
                split=given.split,
                grey=given.grey,
                weights=given.weights,
                views=given.views,
                average=given.average,
                labels=given.labels,
                checkpoint=checkpoint,
                raw=given.raw,
                subset=given.subset,
                compiled=given.compile,
                size_px=given.img_size,
                precision=given.precision,
                device=given.device,
                workers=given.workers,
            )
        elif several and not given.labels:
            scored.append((None, Path(network)))  # as it lies there: a file of predictions alone has no summary
            continue
        else:
            summary, folder = saved.rescore(saved.open_saved(network), given.labels)
        scored.append((summary, folder))
        print(headline(summary))
        if summary["parts"]:
            print(parts_line(summary))
        print(printable(summary["protocol"]))
        for note in summary.get("notes", ()):
            print(printable(note))
        for warning in summary["warnings"]:
            print(f"Warning: {warning}")
        print(folder)
    plain: dict[str, Any] = {}
    if given.calibrate:
        found, path = opened.calibrate(scored[0][1])
        for line in found.lines():
            print(line)
        print(path)
        plain["calibration"] = found.to_json()
    members = [saved.open_saved(folder) for _, folder in scored] if several else []
    if given.compare:
        comparisons = together.compared(members)
        for comparison in comparisons:
            print(printable(comparison.sentence()))
        plain["comparisons"] = [dataclasses.asdict(comparison) for comparison in comparisons]
    if given.combine is not None or is_of_snapshots:
        joint = together.combined(members, given.combine or "arithmetic", given.common)
        print(f"Together: {headline(joint.summary)}")
        for line in joint.lines():
            print(printable(line))
        print(printable(joint.summary["protocol"]))
        print(joint.folder)
        plain["combination"] = {"folder": str(joint.folder), **joint.summary}
    if given.json:
        one = [{"folder": str(folder), **(summary or {})} for summary, folder in scored]
        _print_json((one[0] if len(one) == 1 else {"evaluations": one}) | plain)
    return DONE


def predict(argv: list[str]) -> int:
    """Name what is in photos: files, folders, or a list of names on standard input (-)."""
    import tyro

    @dataclass(frozen=True)
    class Predict(_Scoring):
        # A run folder, or the name of a network.
        network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = ""
        # Files and folders; - reads names from standard input.
        photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO…")] = ()
        # A run trained with --data.colour grey, for the photos that show no colour.
        grey: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
        # Weights for a network by name: a file, default (the published ones) or the name of a published set.
        weights: Annotated[str | None, tyro.conf.arg(metavar="FILE|default|NAME")] = None
        # Side of the input for a network by name, in pixels; by default what the weights were made for.
        img_size: Annotated[int | None, tyro.conf.arg(metavar="PX")] = None
        # Classes to name for each photo.
        top: int = 5
        # Write the table here as well.
        csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Predict, argv, "predict", predict.__doc__ or "")
    if not given.network or not given.photos:
        raise UserError("predict: give a run folder (or a network) and photos, as in: striate predict runs/demo photos/ --top 5")
    if given.top < 1:
        raise UserError(f"--top {given.top}: expected 1 or more.")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from striate.evaluate import open as opened
    from striate.evaluate.rows import rows_csv
    from striate.files import to_json, write_whole

    names = [name for photo in given.photos for name in (opened.names_from() if photo == "-" else [photo])]
    route = opened.ready(
        given.network,
        weights=given.weights,
        grey=given.grey,
        checkpoint=given.checkpoint,
        raw=given.raw,
        size_px=given.img_size,
    )
    rows = opened.predict(
        route,
        names,
        top=given.top,
        precision=given.precision,
        device=given.device,
        workers=given.workers,
    )
    if given.csv is not None:
        write_whole(given.csv, rows_csv(rows, given.top))
    table = Table(box=None, pad_edge=False)
    for head in (
        "photo",
        *(f"{rank + 1}." for rank in range(min(given.top, max((len(row.ranks) for row in rows), default=1) or 1))),
    ):
        table.add_column(head, overflow="fold")
    for row in rows:
        cells = [f"{rank.name} {rank.probability:.1%}" for rank in row.ranks] or [f"bad: {row.reason}"]
        table.add_row(*(Text(printable(cell).replace("\n", "\\n")) for cell in (row.key, *cells)))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    network = route.colour
    tempered = f", temperature {network.temperature:.4g}" if network.temperature != 1 else ""
    for line in (f"{network.weights} weights of {network.checkpoint}, {network.view.describe()}{tempered}", *network.notes):
        print(printable(line), file=sys.stderr)
    bad = sum(bool(row.reason) for row in rows)
    if bad:
        print(f"{bad} of {len(rows)} photos could not be read; their rows say why.", file=sys.stderr)
    if given.json:
        plain = {"rows": [dataclasses.asdict(row) | {"status": row.status} for row in rows], "expected": len(rows), "bad": bad}
        print(to_json(plain, indent=None))
    return DONE


def explain(argv: list[str]) -> int:
    """Show where a network looked: heatmaps over photos, or over right answers and mistakes of a labelled set."""
    import tyro

    @dataclass(frozen=True)
    class Explain:
        # A run folder, or the name of a network.
        network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = ""
        # Photos, as files and folders, - for names on standard input; or one labelled set. By default the run's validation set.
        places: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO…|DATA")] = ()
        # cam, grad-cam, grad-cam++, gradient, smoothgrad, integrated-gradients or occlusion.
        method: str = "grad-cam"
        # Whose grid of features the map is made of, for the three cams; by default the last one.
        layer: Annotated[str | None, tyro.conf.arg(metavar="LAYER")] = None
        # Id or name of the class whose evidence is shown in photos; by default the most probable one of each.
        of_class: Annotated[str | None, tyro.conf.arg(name="class", metavar="CLASS")] = None
        # Of a labelled set: so many right answers, and so many mistakes.
        images: Annotated[int, tyro.conf.arg(metavar="N")] = 12
        # Look into how far each map is to be trusted: remove what it marks, and compare with a network of random weights.
        sanity: bool = True
        # Draw the kernels of the first layer, too.
        kernels: tyro.conf.FlagCreatePairsOff[bool] = False
        # Draw the strongest feature maps of this layer for the first photos, too.
        features: Annotated[str | None, tyro.conf.arg(metavar="LAYER")] = None
        # The folder to write to; by default RUN/explanations/METHOD-HASH6, for a network by name explanations-MODEL-… here.
        out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
        # Weights for a network by name: a file, default (the published ones) or the name of a published set.
        weights: Annotated[str | None, tyro.conf.arg(metavar="FILE|default|NAME")] = None
        # Side of the input for a network by name, in pixels; by default what the weights were made for.
        img_size: Annotated[int | None, tyro.conf.arg(metavar="PX")] = None
        # best, last or step-N, of a run.
        checkpoint: str = "best"
        # Take the raw weights where there are averaged ones (EMA).
        raw: tyro.conf.FlagCreatePairsOff[bool] = False
        # auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # Threads that read images, or processes:N.
        workers: str = "auto"
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Explain, argv, "explain", explain.__doc__ or "")
    if not given.network:
        raise UserError("explain: give a run folder (or a network) and photos, as in: striate explain runs/demo photo.jpg")
    import functools

    from striate import explanation, progress
    from striate.evaluate.open import names_from

    places = [name for place in given.places for name in (names_from() if place == "-" else [place])]
    if given.places and not places:
        raise DataError("explain: there is no name on standard input.")
    with progress.Display() as display:
        found = explanation.explain(
            given.network,
            places,
            method=given.method,
            layer=given.layer,
            of_class=given.of_class,
            images=given.images,
            checked=given.sanity,
            with_kernels=given.kernels,
            features_of=given.features,
            weights=given.weights,
            size_px=given.img_size,
            checkpoint=given.checkpoint,
            raw=given.raw,
            device=given.device,
            workers=given.workers,
            out=given.out,
            watch=functools.partial(display.decoding, doing="Looking at photos"),
        )
    print(printable("\n".join(found.describe())))
    if given.json:
        _print_json(found.to_json())
    return DONE


def submit(argv: list[str]) -> int:
    """Write a challenge's submission for the test images in TESTDIR; or --check, or --score, one that is there."""
    import tyro

    @dataclass(frozen=True)
    class Submit(_Scoring):
        # A run folder, a network's name (with its published weights), or a predictions.parquet. Nothing with --check, --score.
        network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
        # The test images: their folder, or the whole of ILSVRC or Tiny ImageNet.
        images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TESTDIR")] = ""
        # What is submitted: classes with the whole photo as their box, or each class with the box of what is seen of it.
        task: Literal["classification", "localization"] = "classification"
        # With --task localization: head, cam, grad-cam or grad-cam++; auto is the box head where there is one, else grad-cam.
        method: str = "auto"
        # With --task localization: the layer whose grid the maps are made of; by default the one that striate localize kept.
        layer: Annotated[str | None, tyro.conf.arg(metavar="LAYER")] = None
        # With --task localization: where maps are cut, as a share of their range; by default as striate localize fitted it.
        threshold: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
        # Kaggle's CSV of the ILSVRC challenge, or Tiny ImageNet's lines of file name and wnid.
        format: Literal["kaggle", "tiny"] = "kaggle"
        # The file to write; by default submission.csv, or submission.txt for tiny, in this folder.
        out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # The lines that number the classes; by default LOC_synset_mapping.txt beside or above the images.
        mapping: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # How each image is looked at, as for evaluate: center, flip, 10crop, …
        views: str = "center"
        # Look for malformed rows in a submission; exit code 3 where there is an error.
        check: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # With --check: the test images, to compare names and boxes with.
        data: Annotated[str | None, tyro.conf.arg(metavar="TESTDIR")] = None
        # Give the top-5 and top-1 error of a submission, of its classes and of its boxes.
        score: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # With --score: what is in the photos, as LOC_val_solution.csv has it.
        solution: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Submit, argv, "submit", submit.__doc__ or "")
    if sum((bool(given.network), given.check is not None, given.score is not None)) != 1:
        raise UserError(
            "submit: give a run and test images, as in: striate submit runs/demo ILSVRC/Data/CLS-LOC/test; "
            "or --check FILE, or --score FILE --solution FILE; one of them."
        )
    if bool(given.network) != bool(given.images):
        raise UserError(f"submit {given.network}: say which test images to answer for: striate submit {given.network} TESTDIR")
    if given.data is not None and given.check is None:
        raise UserError(f"--data {given.data}: goes with --check FILE; to write a submission, name the images behind the run.")
    if (given.score is None) != (given.solution is None):
        raise UserError(
            "--score FILE and --solution FILE go together: a submission, and the LOC_val_solution.csv to compare it with."
        )
    if given.score is not None and given.format != "kaggle":
        raise UserError(f"--score --format {given.format}: only Kaggle's form has a solution file to compare with.")
    if given.check is not None:
        from striate.submission.check import check

        checked = check(given.check, given.format, given.data, given.mapping)
        exit_code = DataError.exit_code if checked.errors else DONE
        print(printable("\n".join(checked.describe())))
        if given.json:
            _print_json(checked.to_json() | {"exit_code": exit_code})
        return exit_code
    if given.score is not None and given.solution is not None:
        from striate.submission.score import score

        found = score(given.score, given.solution, given.mapping)
        print(printable("\n".join(found.describe())))
        if given.json:
            _print_json(found.to_json())
        return DONE
    import functools

    from striate import progress
    from striate.submission import write

    with progress.Display() as display:
        written = write.submit(
            given.network,
            given.images,
            given.out,
            task=given.task,
            method=given.method,
            layer=given.layer,
            threshold=given.threshold,
            format=given.format,
            mapping=given.mapping,
            views=given.views,
            checkpoint=given.checkpoint,
            raw=given.raw,
            precision=given.precision,
            device=given.device,
            workers=given.workers,
            watch=functools.partial(display.decoding, doing="Looking at images"),
        )
    print(printable("\n".join(written.describe())))
    if given.json:
        _print_json(written.to_json())
    return DONE


def localize(argv: list[str]) -> int:
    """Say where the object is in every image of a set with boxes, and how often that is right; with a gallery."""
    import tyro

    @dataclass(frozen=True)
    class Localize:
        # A run folder, or the name of a network.
        network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL")] = ""
        # Images with boxes: ILSVRC, Tiny ImageNet, a list with x_min …, the word builtin; by default the run's own.
        images: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")] = None
        # Which split of the data; by default the validation set.
        split: Annotated[Literal["train", "val", "test"] | None, tyro.conf.arg(metavar="train|val|test")] = None
        # head (of a network trained with --boxes), cam, grad-cam or grad-cam++; auto: the head, else grad-cam.
        method: str = "auto"
        # The layer whose grid the maps are made of; by default the last one.
        layer: Annotated[str | None, tyro.conf.arg(metavar="LAYER")] = None
        # Where maps are cut, as a share of their range; by default fitted, each half of the images for the other.
        threshold: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
        # With --threshold: the largest component above it, or all of it.
        which: Literal["auto", "largest", "all"] = "auto"
        # Weights for a network by name: a file, default (the published ones) or the name of a published set.
        weights: Annotated[str | None, tyro.conf.arg(metavar="FILE|default|NAME")] = None
        # best, last or step-N, of a run.
        checkpoint: str = "best"
        # Take the raw weights where there are averaged ones (EMA).
        raw: bool = False
        # Go on where the data lacks some of the network's classes.
        subset: tyro.conf.FlagCreatePairsOff[bool] = False
        # auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # Threads that read images, or processes:N.
        workers: str = "auto"
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Localize, argv, "localize", localize.__doc__ or "")
    if not given.network:
        raise UserError("localize: give a run folder (or a network), as in: striate localize runs/demo")
    import functools

    from striate import progress
    from striate.localize import score
    from striate.report import localised

    with progress.Display() as display:
        done = score.localize(
            given.network,
            given.images,
            split=given.split,
            method=given.method,
            layer=given.layer,
            threshold=given.threshold,
            which=given.which,
            weights=given.weights,
            checkpoint=given.checkpoint,
            raw=given.raw,
            subset=given.subset,
            device=given.device,
            workers=given.workers,
            watch=functools.partial(display.decoding, doing="Looking at images"),
        )
    print(printable("\n".join(done.lines())))
    page = localised.write(done)
    print(printable(f"Gallery: {page}"))
    if given.json:
        _print_json({**done.to_json(), "gallery": str(page)})
    return DONE


def report(argv: list[str]) -> int:
    """Write one offline HTML page about a run, or about several side by side."""
    import tyro

    @dataclass(frozen=True)
    class Report:
        # Run folders; with more than one, the page compares them.
        runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")] = ()
        # Where the page that compares goes; by default beside the runs, as compare-A-B.html.
        out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Report, argv, "report", report.__doc__ or "")
    if not given.runs:
        raise UserError("report: give a run folder, such as runs/demo, or several to compare.")
    if given.out is not None and len(given.runs) == 1:
        raise UserError("--out is for the page that compares several runs; that of one run is its own report.html.")
    from striate.report.compare import write_comparison
    from striate.report.write import write_report
    from striate.run.folder import open_run

    folders = [open_run(run).path for run in given.runs]
    path = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, given.out)
    print(path)
    if given.json:
        print(json.dumps({"report": str(path)}))
    return DONE


def runs(argv: list[str]) -> int:
    """List the runs in a folder: state, progress and best top-1, the last changed first."""
    import tyro

    @dataclass(frozen=True)
    class Runs:
        # The folder that runs were made in, or one run.
        folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = Path("runs")
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Runs, argv, "runs", runs.__doc__ or "")
    from striate.run.listing import listing

    found, others = listing(given.folder)
    _print_runs(found)
    if others:
        print(f"{others} other folder{'s' if others > 1 else ''} in {given.folder}, without a run.")
    if given.json:
        print(json.dumps({"runs": [dataclasses.asdict(one) for one in found], "others": others}))
    return DONE


def _print_runs(found: list[Any]) -> None:
    """The table of `striate runs`, and below it what is to be said of each run. A terminal's width shortens the texts in it."""
    import shutil

    if not found:
        print("No runs here yet: striate train DATA makes one.")
        return
    rows = [("run", "state", "steps", "", "epochs", "best top-1 (95 %)", "model", "data", "age", "size")]
    for one in found:
        top1 = "" if one.top1 is None else f"{one.top1:.1%}"
        if one.top1_interval is not None:
            top1 += " ({:.1f} to {:.1f})".format(*(100 * end for end in one.top1_interval))
        steps = "" if one.step is None else str(one.step) + (f"/{one.total_steps}" if one.total_steps else "")
        share = "" if one.share is None else f"{one.share:.0%}" + (" early" if one.state == "done" and one.reason else "")
        epochs = "" if one.epoch is None else f"{one.epoch:.1f}"
        best = top1 if one.split in {"", "val"} else f"{top1} {one.split}"
        age, size = _age(time.time() - one.changed_s), _size(one.size_bytes)
        rows.append((printable(one.name), one.state, steps, share, epochs, best, one.model, printable(one.data), age, size))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    excess = sum(widths) + 2 * len(widths) - 2 - (shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000)
    for column, least in ((0, 24), (7, 8), (6, 8), (0, 12)):
        cut = max(0, min(excess, widths[column] - least))
        widths[column], excess = widths[column] - cut, excess - cut
    for row in rows:
        cells = [cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(row, widths, strict=True)]
        right = {3, 4, 8, 9}
        print("  ".join(f"{cell:{'>' if at in right else '<'}{widths[at]}}" for at, cell in enumerate(cells)).rstrip())
    for one in found:
        left = f"{_age(one.left_s)} left" if one.left_s is not None else ""
        if one.reason or left:
            print(printable(f"{one.name}: {one.reason or left}"))


def _age(seconds: float) -> str:
    """A length of time in its greatest unit: 45 s, 12 min, 3.4 h, 5 d."""
    for unit, of, digits in (("d", 86400, 0), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= of * (2 if unit == "d" else 1):
            return f"{seconds / of:.{digits}f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _size(size_bytes: float) -> str:
    """Bytes for people: 340 kB, 23 MB, 1.2 GB."""
    for unit, of in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= of:
            return f"{size_bytes / of:.{0 if size_bytes >= 10 * of else 1}f} {unit}"
    return f"{size_bytes / 1e3:.0f} kB"


# ---------------------------------------------------------------- measure


def measure(argv: list[str]) -> int:
    """Say what networks cost and see: parameters, MACs, memory, receptive field. Without a name: a table of all networks."""
    import tyro

    options, argv = _builder_options(argv)

    @dataclass(frozen=True)
    class Measure:
        # Networks by name, torchvision/NAME, timm/NAME, package.module:function, or run folders; none for a table of all.
        networks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NETWORK…]")] = ()
        # A line for each layer, and the sizes that papers print.
        layers: tyro.conf.FlagCreatePairsOff[bool] = False
        # Side of the input in pixels; by default the one that the network was published for.
        img_size: int | None = None
        # Number of classes; by default those that the network was published for.
        classes: int | None = None
        # Time passes on this machine, the networks in turns: one image, and a batch. --chart times one image without it.
        latency: bool = False
        # Images of a batch for --latency.
        batch_size: int = 8
        # For --latency: fp32, bf16, fp16, or auto for what is fast here.
        precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
        # Compile the networks before --latency times them.
        compile: tyro.conf.FlagCreatePairsOff[bool] = False
        # For --latency: auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # Photos or folders of them: the effective receptive field of the last convolution, by gradients; repeat it for several.
        field: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="PHOTO")] = ()
        # Another layer for --field; repeat it for several.
        layer: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="LAYER")] = ()
        # Draw what --field found over the first photo.
        out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
        # Weights for --field: a file, default, or the name of a published set; a run has its own.
        weights: Annotated[str | None, tyro.conf.arg(metavar="FILE|default|NAME")] = None
        # Draw published accuracy against MACs and against latency, area by parameters: .png, .svg or .html.
        chart: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # Draw one network as a diagram for a slide.
        draw: Annotated[Path | None, tyro.conf.arg(metavar="FILE.svg")] = None
        # Write the table here as well.
        csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Measure, argv, "measure", measure.__doc__ or "")
    for word in ("layers", "latency", "field"):
        if getattr(given, word) and not given.networks:
            raise UserError(f"--{word}: name the networks, as in: striate measure resnet18 --{word}")
    for word in ("draw", "out"):
        if getattr(given, word) is not None and len(given.networks) != 1:
            raise UserError(f"--{word} {getattr(given, word)}: a picture of one network; name one, found {len(given.networks)}.")
    for word in ("layer", "out", "weights"):
        if getattr(given, word) and not given.field:
            raise UserError(f"--{word}: goes with --field PHOTO, as in: striate measure resnet18 --field photo.jpg --{word} …")
    from striate.measure import effective, listing, table
    from striate.measure import latency as latencies
    from striate.measure.outline import outline
    from striate.report import cost_chart, diagram, fields

    for path, room in ((given.chart, cost_chart), (given.draw, diagram), (given.out, fields)):
        if path is not None:
            room.check_place(path)  # before anything is measured

    keys = {name.removeprefix("model.options."): value for name, value in options.items()}
    found = listing.measure(*given.networks, size_px=given.img_size, classes=given.classes, options=keys)
    plain = [one.to_json(layers=given.layers) for one in found]
    if given.chart is not None:
        cost_chart.check_scored(cost_chart.points(found, None))
    if given.layers:
        for one in found:
            print("\n".join([*table.layer_lines(one), ""]))
    print("\n".join(table.beside_lines(found) if given.networks else table.all_lines(found)))
    if given.csv is not None:
        from striate.files import write_whole

        write_whole(given.csv, listing.to_csv(found))
    timing = None
    if given.latency or (given.chart is not None and given.networks and "--no-latency" not in argv):
        timing = latencies.latency(
            {one.subject.name: one.subject.build for one in found},
            {one.subject.name: (one.subject.channels, one.subject.size_px) for one in found},
            (1, given.batch_size) if given.latency else (1,),
            device=given.device,
            precision=given.precision,
            compiled=given.compile,
        )
        print("\n".join(["", *timing.lines()]))
        for one, facts in zip(found, plain, strict=True):
            facts["latency"] = timing.to_json(one.subject.name)
    for one, facts in zip(found, plain, strict=True):
        if given.field:
            layers = given.layer or (None,)
            looked = [effective.on_photos(one.subject, given.field, weights=given.weights, layer=layer) for layer in layers]
            print("\n".join(["", *looked[0].notes, *(f"{one.subject.name}, {each.field.describe()}" for each in looked)]))
            facts["effective_fields"] = [each.field.to_json() for each in looked]
            if given.out is not None:
                print(fields.write_fields(given.out, one.subject.name, looked))
    if given.chart is not None:
        print(cost_chart.write_chart(given.chart, cost_chart.points(found, timing), timing))
    if given.draw is not None:
        subject, costs = found[0].subject, found[0].cost
        shown = outline(subject.outlined(), subject.name, subject.size_px, subject.channels)
        said = f"{costs.parameters:,} parameters · {costs.macs:,} MACs" + (f" · {subject.year}" if subject.year else "")
        print(diagram.write_diagram(given.draw, shown, subject.name, said))
    if given.json:
        print(json.dumps({"networks": plain}))
    return DONE


# ---------------------------------------------------------------- data


def data(argv: list[str]) -> int:
    """Verbs about data: audit, pack, make, show."""
    verbs = {"audit": data_audit, "pack": data_pack, "make": data_make, "show": data_show}
    if not argv or argv[0] in {"-h", "--help"}:
        print("striate data audit DATA  say what is wrong with a data set: files, labels, classes, boxes, duplicates")
        print("striate data pack DATA PACK  store a data set again, for fast reading: a few large files of small images")
        print("striate data make DIR    write a rendered data set in the layout of a real one")
        print("striate data show DATA   draw what training makes of some photos, before anyone trains")
        return DONE if argv else 2
    if argv[0] not in verbs:
        raise UserError(f"striate data has no verb '{argv[0]}'.{nearest(argv[0], verbs)} Verbs: {', '.join(verbs)}.")
    return verbs[argv[0]](argv[1:])


def data_make(argv: list[str]) -> int:
    """Write a rendered data set whose classes a network has to learn, in the layout of a real one."""
    import tyro

    @dataclass(frozen=True)
    class Make:
        # A folder that does not exist yet, or is empty.
        folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
        # As class folders, as ILSVRC comes from Kaggle, or as Tiny ImageNet ships.
        layout: Literal["folder", "ilsvrc", "tiny"] = "folder"
        # Number of classes.
        classes: int = 12
        # Training images of each class.
        per_class: int = 100
        # Validation images of each class; by default a quarter of per_class.
        val_per_class: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
        # Another seed, other pictures.
        seed: int = 0
        # Add the odd files of real sets: CMYK, grey, PNG named JPEG, truncated, 16-bit, EXIF-rotated, alpha.
        defects: tyro.conf.FlagCreatePairsOff[bool] = False
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Make, argv, "data make", data_make.__doc__ or "")
    from striate.data import synthetic

    made = synthetic.make(
        given.folder,
        layout=given.layout,
        classes=given.classes,
        per_class=given.per_class,
        val_per_class=given.val_per_class,
        seed=given.seed,
        defects=given.defects,
    )
    odd = f", {len(made.defects)} of them odd (defects.csv)" if made.defects else ""
    counts = f"{made.train} training, {made.val} validation and {made.test} test images"
    print(f"{made.folder}: {counts} of {len(made.classes)} classes{odd}")
    if given.json:
        print(json.dumps(dataclasses.asdict(made), default=str))
    return DONE


def data_show(argv: list[str]) -> int:
    """Write a picture of what training makes of some photos, before anyone trains."""
    import tyro

    from striate import recipe as recipes
    from striate.recipes import catalog

    options, argv = _builder_options(argv)
    named = _value_of(argv, "--recipe")
    base = catalog.find(named) if named else recipes.Recipe()

    @dataclass(frozen=True)
    class Show:
        # A folder, a file that is a set by itself (.csv, .jsonl, .parquet, .tar), or the word builtin; see docs/data.md.
        images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
        # Where to start from: a name, or a recipe.json. Recipes: see docs/recipes.md.
        recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
        # Photos, one in a row, spread over the classes.
        rows: int = 8
        # The picture; by default DATA-RECIPE-augmented.png in this folder.
        out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
        # What the recipe is chosen for: auto, cpu, cuda, cuda:N or mps.
        device: str = "auto"
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        # The network.
        model: recipes.ModelGroup = base.model
        # The images: how they are read and what the network sees of them.
        data: recipes.DataGroup = base.data
        # What training does to each image.
        augment: recipes.AugmentGroup = base.augment
        # What is minimised.
        loss: recipes.LossGroup = base.loss
        # How it is minimised.
        optim: recipes.OptimGroup = base.optim
        # How long: one of epochs, steps and time.
        budget: recipes.BudgetGroup = base.budget

    given, changes = _parse_recipe(Show, argv, "data show", data_show.__doc__ or "")
    changes |= options
    from striate import sitting

    request = sitting.Request(data=given.images, recipe=given.recipe, changes=changes, device=given.device)
    shown = sitting.show(request, given.rows, given.out)
    print(shown.path)
    if given.json:
        plain = {"picture": str(shown.path), "photos": shown.photos, "augment": shown.described}
        bad = [{"key": key, "reason": reason} for key, reason in shown.bad]
        print(json.dumps({**plain, "bad": bad}))
    return DONE


def data_audit(argv: list[str]) -> int:
    """Look at every image of a data set and say what is wrong with it: files, labels, classes, boxes, duplicates."""
    import tyro

    @dataclass(frozen=True)
    class Audit:
        # A folder, a file that is a set by itself (.csv, .jsonl, .parquet, .tar), or the word builtin; see docs/data.md.
        images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
        # The folder of what was found; by default DATA-audit in this folder. The same one again goes on where it was stopped.
        out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
        # Threads that decode; auto is one for each core.
        workers: Annotated[Literal["auto"] | int, tyro.conf.arg(metavar="auto|N")] = "auto"
        # Search for pictures that look the same though their files differ.
        near: bool = True
        # Write SHA256SUMS of all files of DATA as well, for --verify and sha256sum --check.
        manifest: tyro.conf.FlagCreatePairsOff[bool] = False
        # Look at no image, but compare all files with such checksums; exit code 4 where any differs.
        verify: Annotated[Path | None, tyro.conf.arg(metavar="SHA256SUMS")] = None
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Audit, argv, "data audit", data_audit.__doc__ or "")
    if given.workers != "auto" and given.workers < 1:
        raise UserError(f"--workers {given.workers}: expected auto, or 1 or more.")
    import functools

    from striate import machine, progress
    from striate.data.audit import audit, checksums
    from striate.data.layouts import detect
    from striate.errors import TO_BE_CONTINUED, Interrupted
    from striate.report import audit as page
    from striate.train.budget import Stop

    workers = machine.cores() if given.workers == "auto" else given.workers
    place = detect.place_of(given.images)
    out = given.out or Path(f"{place.resolve().stem if place.is_file() else place.resolve().name}-audit")
    try:
        with Stop() as stop, progress.Display() as display:
            if given.verify is not None:
                count = functools.partial(display.decoding, doing="Hashing files")
                differences = checksums.verify(given.verify, place, workers, stop.watching(count))
            else:
                count = functools.partial(display.decoding, doing="Looking at images")
                found = audit.audit(given.images, out, workers, stop.watching(count), near=given.near, manifest=given.manifest)
                page.write(found, out / "audit.html")
    except Interrupted as stopped:
        kept = "" if given.verify is not None else " What was found is kept: run the same command again to go on."
        print(f"Stopped ({stopped}).{kept}", file=sys.stderr)
        if given.json:
            print(json.dumps({"exit_code": TO_BE_CONTINUED, "reason": str(stopped)}))
        return TO_BE_CONTINUED
    if given.verify is not None:
        return _verified(given.verify, differences, given.json)
    _print_audit(found, out)
    exit_code = DataError.exit_code if found.has_errors else DONE
    if given.json:
        from striate.files import to_json

        print(to_json({"folder": str(out), "exit_code": exit_code, **page.in_short(found)}, indent=None))
    return exit_code


def _print_audit(found: Any, out: Path) -> None:
    """What an audit found: one line on the set, a table of its defects, the verdict, and where to read on."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from striate.report import audit as page

    print(printable(page.headline(found)))
    for note in found.notes:
        print(printable(f"  {note}"))
    table = Table(box=None, pad_edge=False)
    for head in ("", "defect", "split"):
        table.add_column(head, no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("what, and the first of them", overflow="fold")
    for defect in found.defects:
        first = "\n".join(page.examples(found, defect, 2))
        words = Text(printable(defect.text)).append(f"\n{printable(first)}" if first else "", style="dim")
        style = {"error": "bold red", "warning": "yellow", "note": "dim"}[defect.severity]
        table.add_row(Text(defect.severity, style=style), defect.kind, defect.split, f"{len(defect):,}", words)
    if found.defects:
        Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    print(page.verdict(found))
    print(out / "audit.html")


def _verified(sums: Path, differences: list[Any], wants_json: bool) -> int:
    """Says what differs from a list of checksums. Returns the exit code."""
    from striate.errors import CheckpointError

    for difference in differences:
        print(printable(f"{difference.what}: {difference.name}"))
    counts = {what: sum(one.what == what for one in differences) for what in ("changed", "missing", "unreadable", "extra")}
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    print(f"{told}: not as {sums} says." if told else f"All files are as {sums} says.")
    exit_code = CheckpointError.exit_code if differences else DONE
    if wants_json:
        plain = [{"name": printable(one.name), "what": one.what} for one in differences]
        print(json.dumps({"exit_code": exit_code, **counts, "differences": plain}))
    return exit_code


def data_pack(argv: list[str]) -> int:
    """Store a data set again, for fast reading: a few large files of small images, or of pixels. Stopped, it goes on."""
    import tyro

    @dataclass(frozen=True)
    class Pack:
        # A folder, a file that is a set by itself (.csv, .jsonl, .parquet, .tar), or the word builtin; see docs/data.md.
        images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
        # The pack's folder: a new one, or that of a pack to go on with.
        folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PACK")]
        # Keep the files as they are.
        keep: tyro.conf.FlagCreatePairsOff[bool] = False
        # JPEGs whose shorter side is at most this; by default 256. Nothing is enlarged.
        shorter_px: Annotated[int | None, tyro.conf.arg(metavar="PX")] = None
        # Of those JPEGs, 1 to 100; by default 85.
        quality: Annotated[int | None, tyro.conf.arg(metavar="Q")] = None
        # How those JPEGs store colour; by default 4:2:0, at half size in both directions.
        subsampling: Annotated[Literal["4:2:0", "4:2:2", "4:4:4"] | None, tyro.conf.arg(metavar="4:2:0|4:2:2|4:4:4")] = None
        # Pixels instead, S by S: no decoding at all when they are read, and several times the room.
        raw: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
        # How a photo becomes a square for --raw: the centre (crop, the default) or both sides forced to S.
        fit: Annotated[Literal["crop", "squash"] | None, tyro.conf.arg(metavar="crop|squash")] = None
        # Whether EXIF orientation is applied for --raw; auto: off for ILSVRC and Tiny ImageNet, on for other photos.
        exif: Annotated[Literal["auto", "on", "off"] | None, tyro.conf.arg(metavar="auto|on|off")] = None
        # An image that cannot be decoded stops the packing, or is left out and listed.
        on_bad: Literal["fail", "skip"] = "fail"
        # Threads that decode and encode; auto is one for each core.
        workers: Annotated[Literal["auto"] | int, tyro.conf.arg(metavar="auto|N")] = "auto"
        # One JSON object on the last line of standard output.
        json: tyro.conf.FlagCreatePairsOff[bool] = False

    given = _parse(Pack, argv, "data pack", data_pack.__doc__ or "")
    if given.workers != "auto" and given.workers < 1:
        raise UserError(f"--workers {given.workers}: expected auto, or 1 or more.")
    import functools

    from striate import machine, progress
    from striate.data.pack import format, write
    from striate.errors import TO_BE_CONTINUED, Interrupted
    from striate.train.budget import Stop

    how = format.chosen(given.keep, given.shorter_px, given.quality, given.subsampling, given.raw, given.fit, given.exif)
    command = shlex.join(["striate", "data", "pack", *argv])
    workers = machine.cores() if given.workers == "auto" else given.workers
    try:
        with Stop() as stop, progress.Display() as display:
            count = functools.partial(display.decoding, doing="Packing images")
            packed = write.pack(given.images, given.folder, how, given.on_bad, workers, stop.watching(count), command)
    except Interrupted as stopped:
        print(f"Stopped ({stopped}). What is packed is kept: run the same command again to go on.", file=sys.stderr)
        if given.json:
            print(json.dumps({"pack": str(given.folder), "exit_code": TO_BE_CONTINUED, "reason": str(stopped)}))
        return TO_BE_CONTINUED
    _print_packed(packed)
    if given.json:
        from striate.files import to_json

        print(to_json(packed.to_json(), indent=None))
    return DONE


def _print_packed(packed: Any) -> None:
    """What was packed: sizes, speed, what was lost, what was left out."""
    manifest = packed.manifest
    speed = f", {packed.written / packed.seconds:,.0f} images/s" if packed.written else ""
    shards = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards):,} shards"
    print(f"{packed.folder}: {packed.images:,} images, {manifest.how.describe()}, in {shards}{speed}")
    ratio = packed.bytes_before / max(1, packed.bytes_after)
    change = f"{ratio:.1f} times smaller" if ratio >= 1 else f"{1 / ratio:.1f} times larger"
    print(f"{_size(packed.bytes_before)} before, {_size(packed.bytes_after)} after: {change}")
    lost = manifest.difference
    if lost["images"]:
        worst = f", {lost['worst']:.2f} in the worst ({printable(lost['key'])})" if lost["worst"] else ""
        mean = f"{lost['mean']:.2f} of 255 levels from the exact ones on average"
        print(f"Pixels are {mean}{worst}; {lost['images']:,} images compared")
    if manifest.odd:
        print("Among them: " + ", ".join(f"{count:,} {kind}" for kind, count in manifest.odd.items()))
    for note in packed.notes:
        print(printable(note))
    if manifest.bad:
        print(f"Left out, as they cannot be decoded: {len(manifest.bad):,} (all in manifest.json)")
        for bad in manifest.bad[:10]:
            print(printable(f"  {bad['split']}: {bad['key']}: {bad['reason']}"))


VERBS = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "localize": localize,
    "submit": submit,
    "doctor": doctor,
    "report": report,
    "runs": runs,
    "measure": measure,
    "data": data,
}
