"""Groups: images of one patient, clip or burst stay in one split (`group_by`)."""

import re
from collections.abc import Callable, Iterator

from annotation.copies import Forest
from annotation.layout import Layout
from annotation.store import Store
from system.errors import UserError, shorten

FOLDER, NONE = "folder", "none"


def rule(group_by: str) -> Callable[[str, str], str | None] | None:
    """Returns the function that names the group of an image; None if images are not grouped.

    Args:
        group_by: The setting.

    Returns:
        A function of an image's path relative to the data folder, and relative to its class folder. It returns the name
        of the group, the same in every class and split; None for an image that stands alone.
    """
    if group_by == NONE:
        return None
    if group_by == FOLDER:
        return lambda path, inner: inner.split("/", 1)[0] if "/" in inner else None
    pattern = re.compile(group_by)

    def search(path: str, inner: str) -> str | None:
        found = pattern.search(path)
        return None if found is None else next((part for part in found.groups() if part is not None), found[0])

    return search


def assign(store: Store, layout: Layout, group_by: str) -> None:
    """Writes each kept image's group, and the unit of images that stay together: copies, and images of one group.

    The group column of `labels_file` comes before `group_by`.

    Raises:
        UserError: No image is in a group.
    """
    store.sql("UPDATE image SET grouped = NULL WHERE grouped IS NOT NULL")
    store.sql("UPDATE image SET unit = coalesce(copy_group, -id)")
    given = layout.labelled.groups if layout.labelled else {}
    name_of = (lambda path, inner: given.get(path)) if given else rule(group_by)
    if name_of is None:
        return
    store.sql("DROP TABLE IF EXISTS temp.named")
    store.sql("CREATE TEMP TABLE named(image INTEGER PRIMARY KEY, name TEXT)")
    store.connection.executemany("INSERT INTO named VALUES(?, ?)", _names(store, layout, name_of))
    store.sql("UPDATE image SET grouped = named.name FROM named WHERE image.id = named.image")
    if not given and not store.sql("SELECT count(*) FROM image WHERE grouped IS NOT NULL").fetchone()[0]:
        row = store.sql("SELECT path FROM image WHERE outcome = '' ORDER BY path LIMIT 1").fetchone()
        example = f" (the first is {row[0].decode('utf-8', 'backslashreplace')})" if row else ""
        raise UserError(
            f"group_by={shorten(group_by)}: no image is in a group{example}; correct it, or set group_by=none"
        )
    _join(store)


def _names(store: Store, layout: Layout, name_of: Callable[[str, str], str | None]) -> Iterator[tuple[int, str]]:
    rows = store.connection.cursor().execute("SELECT id, path, folder_split, class FROM image WHERE outcome = ''")
    for image_id, path, split, class_name in rows:
        text = path.decode("utf-8")
        above = "/".join(part for part in (layout.folders[split].replace("\\", "/"), class_name) if part)
        name = name_of(text, text.removeprefix(f"{above}/"))
        if name is not None:
            yield image_id, name


def _join(store: Store) -> None:
    """Makes one unit of groups that share copies."""
    numbers: dict[str | int, int] = {}
    shared = []
    for name, copies in store.sql("SELECT DISTINCT grouped, copy_group FROM image WHERE grouped IS NOT NULL"):
        group = numbers.setdefault(name, len(numbers))
        if copies is not None:
            shared.append((group, numbers.setdefault(copies, len(numbers))))
    forest = Forest(len(numbers))
    for group, copies in shared:
        forest.join(group, copies, "group", 0.0)
    # Beyond those of copies, which are the numbers of images.
    start = store.sql("SELECT coalesce(max(copy_group), 0) + 1 FROM image").fetchone()[0]
    store.sql("DROP TABLE IF EXISTS temp.joined")
    store.sql("CREATE TEMP TABLE joined(node PRIMARY KEY, unit INTEGER) WITHOUT ROWID")
    store.connection.executemany(
        "INSERT INTO joined VALUES(?, ?)", ((node, start + forest.root(number)) for node, number in numbers.items())
    )
    for column in ("copy_group", "grouped"):
        store.sql(f"UPDATE image SET unit = joined.unit FROM temp.joined WHERE image.{column} = joined.node")
