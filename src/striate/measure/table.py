"""What `measure` found, as lines of text: all networks in a table, some beside each other, the layers of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from striate.measure.cost import Cost, Layer
from striate.measure.listing import Measured
from striate.measure.summary import Summary

# Networks beside each other in one block of lines.
_ABREAST = 4
# Whose rule the last totals follow.
_WHOSE = (
    "as the package torchsummary counts, whose table many papers print: the outputs of every module but Sequential and",
    "ModuleList, in training mode with auxiliary heads, doubled for the backward pass, 4 bytes a number, MiB called MB:",
)


def all_lines(found: Sequence[Measured]) -> list[str]:
    """A line for each network."""
    rows = [("network", "year", "input", "parameters", "without aux", "MACs", "top-1", "top-5", "published for")]
    for one in found:
        published, costs = one.subject.published, one.cost
        rows.append(
            (
                one.subject.name,
                str(one.subject.year or ""),
                str(one.subject.size_px),
                f"{costs.parameters:,}",
                f"{costs.parameters_without_aux:,}" if costs.parameters_without_aux < costs.parameters else "",
                f"{costs.macs / 1e6:,.1f} M",
                _percent(published.top1 if published else None),
                _percent(published.top5 if published else None),
                published.protocol if published else "",
            )
        )
    return _aligned(rows, right={2, 3, 4, 5, 6, 7})


def beside_lines(found: Sequence[Measured]) -> list[str]:
    """Some networks beside each other, a fact a line."""
    lines: list[str] = []
    for start in range(0, len(found), _ABREAST):
        columns = [_facts(one) for one in found[start : start + _ABREAST]]
        rows = [(name, *(column[name] for column in columns)) for name in columns[0] if any(column[name] for column in columns)]
        lines += [""] * bool(lines) + _aligned(rows, right=set())
    return lines


def layer_lines(one: Measured) -> list[str]:
    """A line for each use of each layer, then totals, ours and by the rule that papers print."""
    assert isinstance(one.cost, Cost)
    rows = [("layer", "kind", "output", "parameters", "MACs", "output bytes", "sees px", "stride"), *map(_cells, one.cost.layers)]
    lines = [f"{one.subject.name}: {one.subject.channels}x{one.subject.size_px}x{one.subject.size_px}, an image at a time"]
    lines += _aligned(rows, right={3, 4, 5, 6, 7})
    counts, sizes = _totals(one.cost)
    lines += ["", f"{one.subject.name} in all: {counts}", sizes]
    if one.summary is not None:
        lines += [f"{one.subject.name} {_WHOSE[0]}", _WHOSE[1], *summary_lines(one.summary)]
    return lines


def summary_lines(found: Summary) -> list[str]:
    """The foot of torchsummary's table."""
    return [
        f"  Total params: {found.parameters:,}",
        f"  Input size (MB): {found.input_mib:.2f}",
        f"  Forward/backward pass size (MB): {found.passes_mib:.2f}",
        f"  Params size (MB): {found.parameters_mib:.2f}",
        f"  Estimated Total Size (MB): {found.total_mib:.2f}",
    ]


def _cells(line: Layer) -> tuple[str, ...]:
    return (
        line.name + (" (training only)" if line.is_auxiliary else ""),
        line.kind,
        "x".join(map(str, line.shape)) if line.shape is not None else "",
        f"{line.parameters:,}" if line.parameters else "",
        f"{line.macs:,}" if line.macs else "",
        f"{line.output_bytes:,}",
        *_seen(line),
    )


def _totals(cost: Cost) -> list[str]:
    without = f" ({cost.parameters_without_aux:,} without the auxiliary heads)" if cost.has_aux else ""
    training = f"{_size(cost.training_bytes)} kept for a training step" if cost.training_bytes is not None else "no training step"
    return [
        f"{cost.parameters:,} parameters{without}, {cost.macs:,} MACs;",
        f"weights {_size(cost.weight_bytes)}, activations at most {_size(cost.forward_bytes)} in inference, {training}",
    ]


def _facts(one: Measured) -> dict[str, str]:
    """The column of one network, by the name of the line."""
    subject, cost = one.subject, one.cost
    assert isinstance(cost, Cost)
    last, published = cost.last_conv, subject.published
    seen = last.field.sizes_px if last is not None and last.field is not None else None
    has_more = cost.macs_with_aux is not None and cost.macs_with_aux > cost.macs
    return {
        "": subject.name,
        "year": str(subject.year or ""),
        "input": f"{subject.channels}x{subject.size_px}x{subject.size_px}",
        "classes": f"{subject.classes:,}",
        "parameters": f"{cost.parameters:,}",
        "  without auxiliary heads": f"{cost.parameters_without_aux:,}" if cost.has_aux else "",
        "MACs": f"{cost.macs:,}",
        "  with auxiliary heads": f"{cost.macs_with_aux:,}" if has_more else "",
        "weights": _size(cost.weight_bytes),
        "activations in inference": _size(cost.forward_bytes),
        "kept for a training step": _size(cost.training_bytes) if cost.training_bytes is not None else "does not train so small",
        "last convolution sees": f"{_sides(seen)} px" if seen is not None else "the whole image",
        "  which is": last.name if last is not None else "",
        "published top-1": _percent(published.top1 if published else None),
        "published top-5": _percent(published.top5 if published else None),
        "  measured on": published.protocol if published else "",
        "  stands in": published.source if published else "",
    }


def _seen(line: Layer) -> tuple[str, str]:
    if line.field is None:
        return "", ""
    if line.field.sizes_px is None or line.field.strides_px is None:
        return "all", ""
    return _sides(line.field.sizes_px), _sides(line.field.strides_px)


def _sides(sides: tuple[int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _aligned(rows: Iterable[Sequence[str]], right: set[int]) -> list[str]:
    """Rows as lines, the columns below each other. right: columns that stand at the right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:{'>' if place in right else '<'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in table
    ]
