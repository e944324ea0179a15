"""What is aimed at: one constant for each target, from the settings and the objectives."""

from exporter.domain.grade import GRADE_PARTS
from exporter.domain.slo import SLOS
from exporter.settings import Settings

_DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}

CONVERSION = float(_DEFAULTS["target_conversion"])
DEAL_SIZE = float(_DEFAULTS["target_deal_size"])
RESPONSE_SECONDS = float(_DEFAULTS["target_response_seconds"])
# Where the grade gives full marks.
REVENUE_PER_LEAD = GRADE_PARTS["revenue_per_lead"].points[-1][0]
ACCEPTANCE = 0.40
# From these scores on a grade is a B-, a C, a D.
B_SCORE, C_SCORE, D_SCORE = 0.80, 0.73, 0.60
OBJECTIVES = {slo.name: slo.objective for slo in SLOS}
