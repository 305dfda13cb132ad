"""What evaluate.py prints: the report of one evaluation, and a comparison of runs."""

from collections.abc import Mapping
from typing import Any

from evaluation import metrics
from evaluation.metrics import headline
from system.text import columns, counted, pad


def report_text(report: Mapping[str, Any]) -> str:
    """Formats the table of classes, the headline metrics, calibration and rejection.

    Args:
        report: Content of metrics.json.
    """
    return "\n".join([*_class_lines(report), _headline(report), *_confidence_lines(report)])


def _class_lines(report: Mapping[str, Any]) -> list[str]:
    width = max(len("class"), *(columns(row["name"]) for row in report["classes"]))
    lines = [f"{'class':<{width}}  precision  recall      f1  images"]
    for row in report["classes"]:
        precision, recall, f1 = (_four(row[key]) for key in ("precision", "recall", "f1"))
        lines.append(f"{pad(row['name'], width)}  {precision:>9}  {recall:>6}  {f1:>6}  {row['support']:>6}")
    return lines


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _headline(report: Mapping[str, Any]) -> str:
    (label, value), *others = headline(report)
    low, high = report["intervals"]["accuracy"]
    rest = ", ".join(f"{label} {value}" for label, value in others)
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    return f"{report['split']} {label} {value} ({interval}), {rest} on {counted(report['num_pictures'], 'image')}"


def _confidence_lines(report: Mapping[str, Any]) -> list[str]:
    split, confidence, rejection = report["split"], report["confidence"], report["foreign"]
    before, after = (confidence[key]["expected_calibration_error"] for key in ("before", "after"))
    lines = [
        f"confidence: temperature {confidence['temperature']:.3f}, "
        f"calibration error {before:.4f} before, {after:.4f} after"
    ]
    if confidence["threshold"] is not None:
        accuracy = confidence["accuracy_of_answered"]
        of_accepted = "" if accuracy is None else f", accuracy of the accepted {accuracy:.1%}"
        lines.append(
            f"threshold {confidence['threshold']:.3f}: {confidence['coverage']:.1%} of {split} accepted{of_accepted}"
        )
    if rejection:
        lines.append(
            f"out-of-distribution images: {rejection['turned_away']:.1%} of {rejection['num_pictures']} rejected "
            f"({rejection['known_turned_away']:.1%} of {split})"
        )
    return lines


def comparison_text(content: Mapping[str, Any]) -> str:
    """Formats the table of runs with mean and standard deviation, and for two runs their difference.

    Args:
        content: Of comparison.json.
    """
    shown = metrics.informative(content["num_classes"])
    titles = {name: f"{one.title(content['top_k']):>8}" for name, one in shown.items()}
    summary = content["summary"]
    rows = [(row["run"], row) for row in content["runs"]]
    for key in ("mean", "standard_deviation"):
        rows.append((key.replace("_", " "), {name: summary[name][key] for name in shown}))
    width = max(columns(run) for run, _ in rows)
    lines = [f"{'run':<{width}}  {'  '.join(titles.values())}  accuracy minus first"]
    for run, values in rows:
        cells = (f"{values[name]:>{len(column)}.4f}" for name, column in titles.items())
        gap = values.get("minus_first")
        against = f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})" if gap else ""
        lines.append(f"{pad(run, width)}  {'  '.join(cells)}  {against}".rstrip())
    return "\n".join([*lines, *_difference_lines(content["pair"])])


def _difference_lines(pair: Mapping[str, Any] | None) -> list[str]:
    if pair is None:
        return []
    gap = pair["difference"]["accuracy"]
    return [
        f"second - first: accuracy {gap['value']:+.4f} (95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}), "
        f"only the first correct {pair['only_first_right']}, only the second {pair['only_second_right']}, "
        f"McNemar p = {pair['mcnemar_p']:.3g}"
    ]
