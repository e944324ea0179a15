"""Cases of the business figures' recording rules, made: the same few for each figure and window.

Every figure is shown by two copies, of which the second is behind. Other windows, statistics and
grades are there too, and larger.
"""

from statistics import median

from tests.promtool import Document, Samples, case, document, now_and_then

# What a figure is read from: its metric, its other labels, and the same labels of another series.
_FIGURES = {
    "revenue": ("ghl_revenue", "", ""),
    "deals": ("ghl_deals_closed", "", ""),
    "leads": ("ghl_leads_created", "", ""),
    "revenue_per_lead": ("ghl_revenue_per_lead", "", ""),
    "conversion": ("ghl_lead_conversion_ratio", ',basis="period"', ',basis="cohort"'),
    "deal_size": ("ghl_average_deal_size", "", ""),
    "time_to_conversion": (
        "ghl_time_to_conversion_seconds",
        ',statistic="median"',
        ',statistic="p90"',
    ),
    "first_response": ("ghl_first_response_seconds", ',statistic="median"', ',statistic="p90"'),
    "acceptance": ("ghl_recommendation_acceptance_ratio", "", ""),
    "score": ("ghl_performance_score_ratio", "", ""),
}
_COMPARED = ("revenue", "deals", "conversion", "first_response", "acceptance")
# Days.
_WINDOWS = (1, 7, 30)
_END = 30
_LARGE = 1e6


def documents() -> dict[str, Document]:
    """Return the content of the test file, by its name."""
    cases = [_changes(), _past_weeks(), _letters(), _agents()]
    return {"figures.yml": document("recording_rules/business.yml", f"{_END}d", cases)}


def _series(
    metric: str, location: str, window: int, more: str = "", copy: str = "a", job: str = "j"
) -> str:
    labels = f'job="{job}",instance="{copy}",location="{location}",window="{window}d"{more}'
    return f"{metric}{{{labels}}}"


def _recorded(name: str, labels: str, location: str = "l", job: str = "j") -> str:
    return f'{name}{{job="{job}",location="{location}",service="ghl-exporter",{labels}}}'


def _history(*days: int) -> dict[str, str]:
    """Return whether figures were final: a job's never, and else a job for each day they were not.

    They are told of a copy without figures, as a new leader would tell it.
    """
    name = 'ghl_exporter_history_complete{{job="{}",instance="c"}}'
    final = {name.format("j"): _told(dict.fromkeys(days, 1))}
    return final | {name.format(f"not {day}"): _told({day: 0}) for day in days}


def _changes() -> Document:
    """Make the case of the changes: `one` went from 1 to 3 everywhere, `new` began at nothing."""
    days = (0, *_WINDOWS)
    series = _history(*days)
    expected: dict[str, float] = {}
    for place, (figure, (metric, more, other)) in enumerate(_FIGURES.items()):
        series[_series(metric, "l", 90, more)] = _told(dict.fromkeys(days, _LARGE))
        for window in _WINDOWS:
            before, change = 10 * window * (place + 1), (place + 1 + window) / 8
            now = before * (1 + change)
            series |= {
                _series(metric, "l", window, more): _told({window: before, 0: now}),
                _series(metric, "l", window, more, "b"): _told({window: before / 4, 0: now / 2}),
                _series(metric, "one", window, more): _told({window: 1, 0: 3}),
                _series(metric, "new", window, more): _told({window: 0, 0: 5}),
            }
            for day in days:
                job = f"not {day}"
                series[_series(metric, "l", window, more, job=job)] = _told({window: 1, 0: 3})
            if other:
                series[_series(metric, "l", window, other)] = _told({window: _LARGE, 0: _LARGE})
            labels = f'figure="{figure}",window="{window}d"'
            expected[_recorded("job_location:ghl_figure:change_ratio", labels)] = change
            expected[_recorded("job_location:ghl_figure:change_ratio", labels, "one")] = 2
            for day in set(days) - {0, window}:
                job = f"not {day}"
                name = _recorded("job_location:ghl_figure:change_ratio", labels, job=job)
                expected[name] = 2
    name = "job_location:ghl_figure:change_ratio"
    return case("changes to the window before", "1d", series, (name, f"{_END}d", expected))


def _told(values: dict[int, float]) -> str:
    """Write a series that is scraped so many days before the end only."""
    return now_and_then(_END, values)


def _past_weeks() -> Document:
    """Make the case of the baselines: `l` has four weeks, `two` has two, `lone` has one."""
    series = _history(0, 7, 14, 21, 28)
    weeks: dict[str, float] = {}
    baselines: dict[str, float] = {}
    for place, figure in enumerate(_COMPARED):
        metric, more, other = _FIGURES[figure]
        size = 10**place
        known = {
            "l": {1: 40 * size, 2: 10 * size, 3: 30 * size, 4: 20 * size},
            "two": {1: 7 * size, 3: 8 * size},
            "lone": {2: 9 * size},
        }
        for location, values in known.items():
            days = {7 * week: value for week, value in values.items()}
            series[_series(metric, location, 7, more)] = _told(days | {0: 999})
            for week, value in values.items():
                labels = f'figure="{figure}",weeks_ago="{week}"'
                weeks[_recorded("job_location:ghl_figure:past_week", labels, location)] = value
        for day in (0, 7, 14, 21, 28):
            job, values = f"not {day}", {week: week * size for week in (1, 2, 3, 4)}
            told = _told({7 * week: value for week, value in values.items()})
            series[_series(metric, "l", 7, more, job=job)] = told
            values.pop(day // 7, None)
            for week, value in values.items():
                labels = f'figure="{figure}",weeks_ago="{week}"'
                name = _recorded("job_location:ghl_figure:past_week", labels, job=job)
                weeks[name] = value
            name = _recorded("job_location:ghl_figure:baseline", f'figure="{figure}"', job=job)
            baselines[name] = median(values.values())
        older = {7 * week: value / 2 for week, value in known["l"].items()}
        series[_series(metric, "l", 7, more, "b")] = _told(older | {0: 999})
        large = _told(dict.fromkeys((0, 7, 14, 21, 28), _LARGE))
        series[_series(metric, "l", 90, more)] = large
        if other:
            series[_series(metric, "l", 7, other)] = large
        name, labels = "job_location:ghl_figure:baseline", f'figure="{figure}"'
        baselines[_recorded(name, labels)] = 25 * size
        baselines[_recorded(name, labels, "two")] = 7.5 * size
    # What the rules recorded of other figures the time before.
    for location, week in (("l", 1), ("two", 1), ("lone", 1), ("lone", 2)):
        labels = f'location="{location}",figure="other",weeks_ago="{week}"'
        series[f'job_location:ghl_figure:past_week{{job="j",{labels}}}'] = _told({0: _LARGE})
    return case(
        "past weeks and their median",
        "1d",
        series,
        ('job_location:ghl_figure:past_week{figure!="other"}', f"{_END}d", weeks),
        ("job_location:ghl_figure:baseline", f"{_END}d", baselines),
    )


def _letters() -> Document:
    """Make the case of the grade's letter: a location for each grade that can be held."""
    ranks = {"A": 4, "B": 3, "C": 2, "D": 1, "F": 0}
    grades = ("A+", "A", "A-", "B+", "B", "B-", "C+", "C", "C-", "D", "F")
    name = "job_location:ghl_performance_letter:rank"
    series: dict[str, str] = {}
    expected: dict[str, float] = {}
    for place, held in enumerate(grades):
        location = f"l{place}"
        for grade in grades:
            more = f',grade="{grade}"'
            series |= {
                _series("ghl_performance_grade", location, 30, more): _told({0: grade == held}),
                _series("ghl_performance_grade", location, 30, more, "b"): _told({0: 0}),
                _series("ghl_performance_grade", location, 7, more): _told({0: 1}),
            }
        labels = f'{name}{{job="j",location="{location}",service="ghl-exporter"}}'
        expected[labels] = ranks[held[0]]
    return case("letters of grades", "1d", series, (name, f"{_END}d", expected))


def _agents() -> Document:
    """Make the case of the agents' changes: `new` had nothing a week ago."""
    series = _history(0, 7)
    asked: list[tuple[str, str, Samples]] = []
    # Who did nothing in a week had no revenue and no deals in it; a score nobody had.
    silent = (("new", 100), ("gone", -30), ("idle then", 0), ("idle now", 0))
    more_of = {"revenue": silent, "deals_closed": silent}
    for place, figure in enumerate(("revenue", "deals_closed", "productivity_score")):
        metric, more = f"ghl_agent_{figure}", ',agent="x"'
        change = 7.0 * (place + 1)
        series |= {
            _series(metric, "l", 7, more): _told({7: 100, 0: 100 + change}),
            _series(metric, "l", 7, more, "b"): _told({7: 50, 0: 60}),
            _series(metric, "l", 7, ',agent="y"'): _told({7: 10, 0: 8}),
            _series(metric, "l", 7, ',agent="new"'): _told({0: 100}),
            _series(metric, "l", 7, ',agent="gone"'): _told({7: 30}),
            _series(metric, "l", 7, ',agent="idle then"'): _told({7: 0}),
            _series(metric, "l", 7, ',agent="idle now"'): _told({0: 0}),
            _series(metric, "l", 30, more): _told({7: 900, 0: _LARGE}),
            _series(metric, "l", 7, more, job="not 0"): _told({7: 1, 0: 3}),
            _series(metric, "l", 7, more, job="not 7"): _told({7: 1, 0: 3}),
        }
        name = f"job_location_agent:ghl_agent_{figure}:delta7d"
        expected = {
            f'{name}{{job="j",location="l",agent="{agent}",service="ghl-exporter"}}': value
            for agent, value in (("x", change), ("y", -2), *more_of.get(figure, ()))
        }
        asked.append((name, f"{_END}d", expected))
    return case("agents against the week before", "1d", series, *asked)
