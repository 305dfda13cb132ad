"""YAML: plain values only, no key twice, errors in one line."""

import os
from pathlib import Path
from typing import Any

import yaml

from system.errors import UserError

# Settings are two deep, descriptions of exports six.
MAX_NESTING = 50
# Python refuses to print much longer integers.
MAX_BITS = 1000


def parse_yaml(text: str) -> Any:
    """Reads a YAML text of plain values: scalars, lists and mappings.

    Raises:
        DuplicateKeyError: A mapping has a key twice; YAML's own loaders keep the last one without a word.
        yaml.YAMLError: It is not YAML, a tag does not fit its value, a date does not exist, or it is nested more than
            MAX_NESTING deep.
    """
    loader = _PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _PlainLoader(yaml.SafeLoader):
    """Raises YAMLError for whatever cannot be read; PyYAML lets the errors of its conversions through."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise yaml.composer.ComposerError(
                None, None, f"nested more than {MAX_NESTING} deep", self.peek_event().start_mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        # Conversions by tag: int(""), a date that does not exist, a timestamp that is none, a truth value not known.
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise yaml.constructor.ConstructorError(None, None, "an integer of this length", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise DuplicateKeyError(None, None, f"{key.value} is set twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file of settings.

    Raises:
        UserError: The file is missing, is not YAML, has a key twice, or is not a mapping.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing YAML file with --config") from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}: line {line}: {error.problem}; write each setting once, as `key: value`") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: this is not YAML{where}; write one `key: value` per line") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: there are no settings in it; write one `key: value` per line")
    return content or {}
