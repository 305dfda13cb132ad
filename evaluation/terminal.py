"""What evaluate.py prints: the report of one evaluation, and a comparison of runs."""

from collections.abc import Mapping
from typing import Any

from evaluation import metrics
from evaluation.metrics import headline
from system.language import counted, translate
from system.text import columns, pad, rjust


def report_text(report: Mapping[str, Any]) -> str:
    """Formats the table of classes, the headline metrics, calibration and rejection.

    Args:
        report: Content of metrics.json.
    """
    return "\n".join([*_class_lines(report), _headline(report), *_confidence_lines(report)])


def _class_lines(report: Mapping[str, Any]) -> list[str]:
    first = translate("class")
    width = max(columns(first), *(columns(row["name"]) for row in report["classes"]))
    titles = (("precision", 9), ("recall", 6), ("f1", 6), ("images", 6))
    lines = ["  ".join([pad(first, width), *(rjust(translate(name), least) for name, least in titles)])]
    for row in report["classes"]:
        precision, recall, f1 = (_four(row[key]) for key in ("precision", "recall", "f1"))
        lines.append(f"{pad(row['name'], width)}  {precision:>9}  {recall:>6}  {f1:>6}  {row['support']:>6}")
    return lines


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _headline(report: Mapping[str, Any]) -> str:
    values = [value for _, value in headline(report)]
    titles = [one.title(report["top_k"]) for one in metrics.informative(report["num_classes"]).values()]
    low, high = report["intervals"]["accuracy"]
    return translate(
        "{split} {label} {value} (95 % interval {low:.4f} to {high:.4f}), {rest} on {images}",
        split=report["split"],
        label=titles[0],
        value=values[0],
        low=low,
        high=high,
        rest=translate(", ").join(f"{title} {value}" for title, value in zip(titles[1:], values[1:], strict=True)),
        images=counted(report["num_pictures"], "image"),
    )


def _confidence_lines(report: Mapping[str, Any]) -> list[str]:
    split, confidence, rejection = report["split"], report["confidence"], report["foreign"]
    before, after = (confidence[key]["expected_calibration_error"] for key in ("before", "after"))
    lines = [
        translate(
            "confidence: temperature {temperature:.3f}, calibration error {before:.4f} before, {after:.4f} after",
            temperature=confidence["temperature"],
            before=before,
            after=after,
        )
    ]
    if confidence["threshold"] is not None:
        accuracy = confidence["accuracy_of_answered"]
        line = translate(
            "threshold {threshold:.3f}: {coverage:.1%} of {split} accepted",
            threshold=confidence["threshold"],
            coverage=confidence["coverage"],
            split=split,
        )
        if accuracy is not None:
            line += translate(", accuracy of the accepted {accuracy:.1%}", accuracy=accuracy)
        lines.append(line)
    if rejection:
        lines.append(
            translate(
                "out-of-distribution images: {share:.1%} of {count} rejected ({known:.1%} of {split})",
                share=rejection["turned_away"],
                count=rejection["num_pictures"],
                known=rejection["known_turned_away"],
                split=split,
            )
        )
    return lines


def comparison_text(content: Mapping[str, Any]) -> str:
    """Formats the table of runs with mean and standard deviation, and for two runs their difference.

    Args:
        content: Of comparison.json.
    """
    shown = metrics.informative(content["num_classes"])
    titles = {name: rjust(one.title(content["top_k"]), 8) for name, one in shown.items()}
    summary = content["summary"]
    rows = [(row["run"], row) for row in content["runs"]]
    for key in ("mean", "standard_deviation"):
        rows.append((translate(key.replace("_", " ")), {name: summary[name][key] for name in shown}))
    width = max(columns(run) for run, _ in rows)
    lines = ["  ".join([pad(translate("run"), width), *titles.values(), translate("accuracy minus first")])]
    for run, values in rows:
        cells = (f"{values[name]:>{columns(column)}.4f}" for name, column in titles.items())
        gap = values.get("minus_first")
        against = (
            f"{gap['value']:+.4f} ({translate('{low:+.4f} to {high:+.4f}', low=gap['low'], high=gap['high'])})"
            if gap
            else ""
        )
        lines.append(f"{pad(run, width)}  {'  '.join(cells)}  {against}".rstrip())
    return "\n".join([*lines, *_difference_lines(content["pair"])])


def _difference_lines(pair: Mapping[str, Any] | None) -> list[str]:
    if pair is None:
        return []
    gap = pair["difference"]["accuracy"]
    return [
        translate(
            "second - first: accuracy {value:+.4f} (95 % interval {low:+.4f} to {high:+.4f}), only the first correct "
            "{first}, only the second {second}, McNemar p = {p:.3g}",
            **{key: gap[key] for key in ("value", "low", "high")},
            first=pair["only_first_right"],
            second=pair["only_second_right"],
            p=pair["mcnemar_p"],
        )
    ]
