"""The steps of a run that has something new to do: verify files, decide, write the lists and the report."""

from collections.abc import Iterator

from annotation import copies, groups, outputs, page, splits
from annotation.corrected import Corrections
from annotation.layout import Layout
from annotation.lists import CORRECTED
from annotation.names import REPORT
from annotation.splits import Summary
from annotation.store import Store
from annotation.verdicts import Verdict
from annotation.walk import Walk, refuse_vanished
from annotation.worker_pool import Pool
from system.progress import bar
from system.publishing import publishing
from system.settings import Settings

BATCH_FILES = 256
BATCH_BYTES = 4 << 20
COMMIT_EVERY = 50  # batches, after which verdicts survive a killed run


def verify_files(store: Store, pool: Pool) -> int:
    """Decodes every file that has no verdict yet, in the worker processes; returns their number."""
    count = store.count_unverified()
    ids: dict[bytes, int] = {}

    def batches() -> Iterator[list[bytes]]:
        for batch in store.unverified_batches(BATCH_FILES, BATCH_BYTES):
            ids.update((path, image_id) for image_id, path in batch)
            yield [path for _, path in batch]

    with bar(count, "files") as shown:
        for done, (paths, verdicts) in enumerate(pool.run("verify", batches(), _lost_verdict)):
            store.add_verdicts([(ids.pop(path), verdict) for path, verdict in zip(paths, verdicts, strict=True)])
            shown.update(len(paths))
            if done % COMMIT_EVERY == 0:
                store.commit()
    store.commit()
    return count


def _lost_verdict(ending: str) -> Verdict:
    if ending == "timeout":
        return Verdict("decoder_timeout", "its decoder did not come to an end; save the image again")
    return Verdict("decoder_crash", f"its decoder crashed ({ending}); save the image again")


def decide(store: Store, pool: Pool, layout: Layout, settings: Settings, seen: Walk) -> Summary:
    """Decides for each file whether it is kept, what it is a copy of, and which split it belongs to."""
    corrections = Corrections(settings, layout.class_names)
    splits.decide_kept(store, settings)
    corrections.apply_keeps(store)
    copies.find_copies(store, pool, settings.duplicates)
    groups.assign(store, layout, settings.group_by)
    fractions = splits.missing_splits(layout, settings)
    splits.decide_splits(store, fractions, settings.seed)
    corrections.apply(store)
    if settings.on_leak == "drop_from_train":
        splits.drop_leaks(store)
    summary = splits.summarise(store, fractions, dict(seen.skipped))
    summary.folders = layout.left_out | seen.left_out
    summary.corrections, summary.unused_corrections = dict(corrections.counts), sorted(corrections.unused)
    summary.conflicting_corrections = corrections.conflicts
    return summary


def publish(
    store: Store, pool: Pool, layout: Layout, settings: Settings, seen: Walk, summary: Summary, list_format: str
) -> None:
    """Writes all files of the run together; with on_leak=error and a leak, the reports but not the lists.

    Raises:
        UserError: The images have gone, a folder cannot be written to, a leak is not allowed, or a name does not fit
            the format.
    """
    refused = settings.on_leak == "error" and (summary.leaks or summary.divided)
    with publishing(settings.lists, "set lists_dir to a folder of yours") as publication:
        if not refused and list_format == "paddlex":
            outputs.write_paddlex_lists(publication.open, store, layout, settings.lists)
        elif not refused:
            outputs.write_lists(publication.open, store, layout)
        if not refused and list_format == "csv":
            outputs.write_csv(publication.open, store)
        outputs.write_left_out(publication.open, store, layout)
        outputs.write_copies(publication.open, store, layout)
        outputs.write_groups(publication.open, store, layout)
        if summary.corrections:
            outputs.write_corrected(publication.open, store, layout)
        else:
            publication.remove(CORRECTED)
        publication.open(REPORT).write(page.render(store, pool, layout, settings, summary))
        # Last, so that hardly anything can happen between it and the renaming.
        refuse_vanished(layout, seen)
    if refused:
        raise outputs.leak_error(summary, settings.lists)
