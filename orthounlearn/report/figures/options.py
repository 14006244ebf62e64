"""What an option of a method decides: accuracies and what a probe finds, over its values."""

from collections import defaultdict
from collections.abc import Sequence

import plotly.graph_objects as go

from orthounlearn.report.cases import ORIGINAL, RETRAIN
from orthounlearn.report.collect import is_marked, plain_name
from orthounlearn.report.figures.kinds import Overview
from orthounlearn.report.figures.panels import by_group, grid
from orthounlearn.report.rows import Row
from orthounlearn.report.style import GREY, Look, looks

_MEASURES = {
    "acc/retain_test": "retained test %",
    "acc/forget_test": "forgotten test %",
    "probe/k50": "50-shot probe %",
}
_LEAST = 3  # values of an option that make a line


def draw(rows: Sequence[Row], _: dict[str, Look]) -> go.Figure | None:
    """Return a line for each choice of the other options, a row of panels for each original.

    Of the method with the most settings; over its option with the most numbers as values.
    """
    variants: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if is_marked(row.method) and row.options and row.step == 1:
            variants[plain_name(row.method)].append(row)
    if not variants:
        return None
    name, members = max(variants.items(), key=lambda item: len(item[1]))
    values = {
        option: {repr(row.options.get(option)) for row in members}
        for option in dict.fromkeys(option for row in members for option in row.options)
    }
    differing = [option for option, found in values.items() if len(found) > 1]
    numbers = [option for option in differing if all(_is_number(row, option) for row in members)]
    if not numbers or len(values[along := max(numbers, key=lambda one: len(values[one]))]) < _LEAST:
        return None
    others = [option for option in differing if option != along]
    lines = {row.method: " ".join(f"{o}={row.options.get(o)}" for o in others) for row in members}
    drawn = looks(dict.fromkeys(lines.values()))
    groups = by_group(members)
    references = by_group([row for row in rows if row.method in (ORIGINAL, RETRAIN)])
    titles = [measure for _ in groups for measure in _MEASURES.values()]
    figure, places = grid(titles, columns=len(_MEASURES), row_height=300, names=len(drawn) + 2)
    panels = iter(places)
    named: set[str] = set()
    for title, of_group in groups.items():
        for key in _MEASURES:
            line, column = next(panels)
            for label in dict.fromkeys(lines[row.method] for row in of_group):
                points = sorted(
                    (row.options[along], 100 * row.metrics[key].mean)
                    for row in of_group
                    if lines[row.method] == label and key in row.metrics
                )
                look = drawn[label]
                figure.add_scatter(
                    x=[x for x, _ in points], y=[y for _, y in points], mode="lines+markers",
                    name=label or name, legendgroup=label, showlegend=label not in named,
                    line={"color": look.colour, "dash": look.dash, "width": 1.6},
                    marker={"color": look.colour, "symbol": look.symbol, "size": 8},
                    hovertemplate=f"<b>{label}</b><br>{along} %{{x}}: %{{y:.1f}} %<extra></extra>",
                    row=line, col=column,
                )  # fmt: skip
                named.add(label)
            for reference in references.get(title, []):
                if key in reference.metrics:
                    figure.add_hline(
                        y=100 * reference.metrics[key].mean, line_width=1, line_color=GREY,
                        line_dash="dot" if reference.method == RETRAIN else "dash",
                        annotation_text=reference.method, annotation_font_size=10,
                        row=line, col=column,
                    )  # fmt: skip
            figure.update_xaxes(
                title_text=f"{along} of {name}", rangemode="tozero", row=line, col=column
            )
            figure.update_yaxes(
                title={"text": title if column == 1 else None, "font": {"size": 11}},
                rangemode="tozero", row=line, col=column,
            )  # fmt: skip
    return figure


def _is_number(row: Row, option: str) -> bool:
    value = row.options.get(option)
    return isinstance(value, int | float) and not isinstance(value, bool)


FIGURE = Overview(
    "options",
    "What an option decides",
    "Of the method with the most settings in the table: accuracies, and what a fresh linear "
    "classifier finds of the forgotten class, over the option with the most values. A line for "
    "each choice of the other options; dashed the original network, dotted the retrained ones.",
    25,
    draw,
)
