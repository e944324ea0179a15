"""What is aimed at: one constant for each target, from the settings and the objectives."""

from exporter.kpis.grade import GRADE_PARTS
from exporter.settings import Settings
from exporter.slo import SLOS

_DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}

CONVERSION = float(_DEFAULTS["target_conversion"])
DEAL_SIZE = float(_DEFAULTS["target_deal_size"])
RESPONSE_SECONDS = float(_DEFAULTS["target_response_seconds"])
# Where the grade gives full marks.
REVENUE_PER_LEAD = GRADE_PARTS["revenue_per_lead"].points[-1][0]
ACCEPTANCE = 0.40
# B is good; below C somebody is told.
GOOD_SCORE, LOW_SCORE = 0.83, 0.73
OBJECTIVES = {slo.name: slo.objective for slo in SLOS}
