"""The oracle's arithmetic: ratios, quantiles, correlations, and the performance grade."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from itertools import pairwise

InWindow = Callable[[datetime | None], bool]
Values = dict[str, float | None]
Pairs = Sequence[tuple[Fraction, int]]

FEWEST = 30
# part: its weight, and the points that straight lines run through
GRADE = {
    "webhook_success": (25, ((0.0, 0.0), (0.90, 0.60), (0.95, 0.80), (0.99, 1.0))),
    "lead_conversion": (30, ((0.0, 0.0), (0.10, 0.667), (0.15, 0.833), (0.20, 1.0))),
    "revenue_per_lead": (25, ((0.0, 0.0), (5_000.0, 1.0))),
    "recommendation_acceptance": (20, ((0.0, 0.0), (0.20, 0.50), (0.40, 0.75), (0.60, 1.0))),
}
LETTERS = {
    "A+": 0.97,
    "A": 0.93,
    "A-": 0.90,
    "B+": 0.87,
    "B": 0.83,
    "B-": 0.80,
    "C+": 0.77,
    "C": 0.73,
    "C-": 0.70,
    "D": 0.60,
    "F": -math.inf,
}


def ratio(part: Fraction | int, whole: int) -> float | None:
    return float(Fraction(part) / whole) if whole else None


def quantile(values: Collection[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def correlation(pairs: Pairs) -> float | None:
    """Pearson's, by its definition: deviations from the means."""
    if len(pairs) < FEWEST:
        return None
    mean_x = sum((x for x, _ in pairs), Fraction()) / len(pairs)
    mean_y = Fraction(sum(y for _, y in pairs), len(pairs))
    together = sum(((x - mean_x) * (y - mean_y) for x, y in pairs), Fraction())
    apart = sum(((x - mean_x) ** 2 for x, _ in pairs), Fraction())
    apart *= sum(((y - mean_y) ** 2 for _, y in pairs), Fraction())
    return float(together) / math.sqrt(apart) if apart else None


def auc(pairs: Pairs) -> float | None:
    """Of all pairs of a deal and none, the share in which the deal has the higher score."""
    deals = [x for x, y in pairs if y]
    others = [x for x, y in pairs if not y]
    if len(pairs) < FEWEST or not deals or not others:
        return None
    halves = sum(2 if deal > other else deal == other for deal in deals for other in others)
    return halves / 2 / (len(deals) * len(others))


def _score(value: float, points: Sequence[tuple[float, float]]) -> float:
    if value <= 0:
        return 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if value < x1:
            return y0 + (value - x0) / (x1 - x0) * (y1 - y0)
    return points[-1][1]


def grade(values: Mapping[str, float | None]) -> Values:
    """Return the grade, its score and its parts, from the other KPIs."""
    sources = [
        values.get(f'ghl_webhook_success_ratio{{source="{s}"}}') for s in ("receiver", "platform")
    ]
    known = [value for value in sources if value is not None]
    found = {
        "webhook_success": min(known, default=None),
        "lead_conversion": values['ghl_lead_conversion_ratio{basis="period"}'],
        "revenue_per_lead": values["ghl_revenue_per_lead"],
        "recommendation_acceptance": values["ghl_recommendation_acceptance_ratio"],
    }
    scores = {part: _score(v, GRADE[part][1]) for part, v in found.items() if v is not None}
    weight = sum(GRADE[part][0] for part in scores)
    result: Values = {f'ghl_performance_part_ratio{{part="{p}"}}': s for p, s in scores.items()}
    result["ghl_performance_score_coverage_ratio"] = weight / 100
    if not scores:
        return result
    score = sum(GRADE[part][0] * of for part, of in scores.items()) / weight
    result["ghl_performance_score_ratio"] = score
    if weight >= 50:
        held = next(letter for letter, least in LETTERS.items() if round(score, 9) >= least)
        for letter in LETTERS:
            result[f'ghl_performance_grade{{grade="{letter}"}}'] = int(letter == held)
    return result
