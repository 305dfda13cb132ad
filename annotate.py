"""Checks a folder of images and writes the lists that training reads.

It decodes every image, leaves out what cannot be trained on and says why, finds copies and copies across splits,
makes splits that are missing, and writes a report to look at. The images themselves are never touched.
"""

import argparse
import dataclasses
import json
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import config
from annotation import outputs, splits
from annotation.lists import LABELS, SPLITS
from annotation.splits import Summary
from annotation.store import Store, open_store
from annotation.summary import print_summary
from annotation.walk import Layout, Walk, find_layout, walk
from system import cli
from system.files import publishing
from system.machine import cores
from system.settings import Settings

# What only a run that finds something new needs is imported where it is used: a re-run takes less time than its import.
if TYPE_CHECKING:
    from tqdm import tqdm

    from annotation.verdicts import Verdict
    from annotation.worker_pool import Pool

BATCH_FILES = 64
BATCH_BYTES = 4 << 20
COMMIT_EVERY = 50  # batches: what a killed run has judged so far is remembered
REPORT = "annotate.html"
# Settings that decide what is written; another value of one makes a re-run decide anew (but decode nothing).
DECISIVE = "data_dir non_rgb max_pixels valid_fraction test_fraction duplicates on_leak seed".split()


def command_line() -> argparse.ArgumentParser:
    """Makes the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as in config.yaml")
    parser.add_argument(
        "--fresh", action="store_true", help="forget the remembered verdicts and decode every file anew"
    )
    parser.add_argument(
        "--format",
        choices=("tsv", "paddlex"),
        default="tsv",
        help="tsv: lists for train.py; paddlex: train.txt, val.txt, test.txt and label.txt for PaddleX and PaddleClas",
    )
    return parser


def bar(total: int, unit: str) -> "tqdm":
    """Makes a progress bar on stderr, none where nobody watches."""
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True, smoothing=0.1)


def progress(batches: list, unit: str) -> Iterator:
    """Shows a progress bar over batches."""
    with bar(sum(map(len, batches)), unit) as shown:
        for batch in batches:
            yield batch
            shown.update(len(batch))


def lost(how: str) -> "Verdict":
    """Judges a file whose decoder took its process down."""
    from annotation.verdicts import Verdict

    if how == "timeout":
        return Verdict("decoder_timeout", "its decoder did not come to an end; save the image anew")
    return Verdict("decoder_crash", f"its decoder crashed ({how}); save the image anew")


def judge_files(store: Store, pool: "Pool") -> int:
    """Has every file decoded that has no verdict; returns how many."""
    count = store.unjudged()
    numbers: dict[bytes, int] = {}

    def batches() -> Iterable[list[bytes]]:
        for batch in store.unjudged_batches(BATCH_FILES, BATCH_BYTES):
            numbers.update((path, number) for number, path in batch)
            yield [path for _, path in batch]

    with bar(count, "files") as shown:
        for done, (paths, verdicts) in enumerate(pool.run("judge", batches(), lost)):
            store.remember([(numbers.pop(path), verdict) for path, verdict in zip(paths, verdicts, strict=True)])
            shown.update(len(paths))
            if done % COMMIT_EVERY == 0:
                store.commit()
    store.commit()
    return count


def decide(store: Store, pool: "Pool", layout: Layout, settings: Settings, seen: Walk) -> Summary:
    """Decides what each file is: kept or not, whose copy, in which split."""
    from annotation import copies

    splits.decide_kept(store, settings)
    copies.find_copies(store, pool, settings.duplicates, progress)
    made = splits.split_pool(layout, settings)
    splits.decide_splits(store, made, settings.seed)
    if settings.on_leak == "drop_from_train":
        splits.drop_leaks(store)
    return splits.summarise(store, made, dict(seen.passed_over))


def publish(store: Store, pool: "Pool", layout: Layout, settings: Settings, summary: Summary, form: str) -> None:
    """Writes every file of the run, all together; with on_leak=error and a leak, only those that show it.

    Raises:
        UserError: A folder cannot be written to, a leak is not allowed, or a name does not fit the format.
    """
    from annotation import page

    stop = settings.on_leak == "error" and summary.leaks
    with publishing(settings.lists) as open_new:
        if not stop and form == "paddlex":
            outputs.write_paddlex_lists(open_new, store, layout, settings.lists)
        elif not stop:
            outputs.write_lists(open_new, store, layout)
        outputs.write_left_out(open_new, store, layout)
        outputs.write_copies(open_new, store, layout)
        open_new(REPORT).write(page.render(store, pool, layout, settings, summary))
    if stop:
        outputs.refuse_leaks(summary, settings.lists)


def stamp(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Notes size and time of change of written files; a file that is missing has none."""
    found = {}
    for name in names:
        try:
            status = os.stat(folder / name)
            found[name] = [status.st_size, status.st_mtime_ns]
        except OSError:
            found[name] = []
    return found


def written_files(form: str) -> list[str]:
    """Names the files that a run writes."""
    lists = (
        ["label.txt", "train.txt", "val.txt", "test.txt"]
        if form == "paddlex"
        else [LABELS, *(f"{s}.txt" for s in SPLITS)]
    )
    return [*lists, outputs.REJECTS, outputs.REMARKS, outputs.DUPLICATES, REPORT]


def request(layout: Layout, settings: Settings, form: str) -> str:
    """Writes down what was asked, so that a re-run can tell whether the same is asked again."""
    asked = {name: getattr(settings, name) for name in DECISIVE}
    return json.dumps([asked, form, layout.folders, layout.class_names], sort_keys=True)


def unchanged(store: Store, layout: Layout, asked: str, form: str, folder: Path) -> Summary | None:
    """Returns the last run's summary if nothing has changed since: no file, no setting, no list."""
    last = store.fact("last")
    if not last or last["asked"] != asked or last["written"] != stamp(folder, written_files(form)):
        return None
    seen = Walk()
    for _ in walk(layout, seen):
        pass
    return Summary(**last["summary"]) if seen.digest.hexdigest() == last["files"] else None


def annotate(settings: Settings, fresh: bool = False, form: str = "tsv") -> tuple[Summary, Layout, int]:
    """Checks the data folder and writes the lists.

    Args:
        fresh: Forgets the remembered verdicts.
        form: "tsv" or "paddlex".

    Returns:
        The numbers, the layout, and how many files were decoded.

    Raises:
        UserError: The folder does not fit together, a leak is not allowed, or nothing can be written.
    """
    layout = find_layout(settings)
    with open_store(settings.lists, layout.data_dir, fresh) as store:
        asked = request(layout, settings, form)
        summary = unchanged(store, layout, asked, form, settings.lists)
        if summary:
            return summary, layout, 0
        seen = Walk()
        store.reconsider(settings.max_pixels)
        store.note(walk(layout, seen))
        store.commit()
        from annotation.worker_pool import Pool

        workers = cores() if settings.scan_workers == "auto" else settings.scan_workers
        with Pool(workers, layout.data_dir, settings.max_pixels) as pool:
            decoded = judge_files(store, pool)
            summary = decide(store, pool, layout, settings, seen)
            publish(store, pool, layout, settings, summary, form)
        written = stamp(settings.lists, written_files(form))
        last = {"asked": asked, "files": seen.digest.hexdigest(), "written": written}
        passing = store.passing_troubles()
        store.set_fact("last", None if passing else last | {"summary": dataclasses.asdict(summary)})
        store.commit()
        return summary, layout, decoded


def main() -> None:
    """Runs the command."""
    parser = command_line()
    # Settings may stand before, between and after the options.
    arguments = parser.parse_intermixed_args()
    overrides, rest = cli.split_overrides(arguments.overrides)
    if rest:
        parser.error(f"{rest[0]}: write settings as KEY=VALUE")
    settings = config.load(arguments.config, overrides)
    summary, layout, decoded = annotate(settings, arguments.fresh, arguments.format)
    print_summary(summary, layout, settings, decoded)
    if arguments.format == "tsv":
        print(f"next: {next_command(arguments.config, overrides)}")


def next_command(file: str | None, overrides: list[str]) -> str:
    """Names the command that trains on these lists: it needs the settings that say where they are."""
    kept = ["--config", file] if file else []
    kept += [
        argument for argument in overrides if argument.lower().startswith(("data_dir=", "lists_dir=", "max_pixels="))
    ]
    return shlex.join(["python", "train.py", *kept])


if __name__ == "__main__":
    cli.command(main)
