"""The performance grade's parts: by which points a value becomes a score."""

from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field, field_validator


class GradePart(BaseModel):
    """One part: straight lines through its points, from (0, 0) on, flat after the last."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float = Field(gt=0)
    points: tuple[tuple[float, float], ...] = Field(min_length=1)

    @field_validator("points")
    @classmethod
    def _rising(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        places = [0.0, *(point[0] for point in value)]
        if any(after <= before for before, after in pairwise(places)):
            raise ValueError("the points' values must rise, from above 0")
        if any(not 0 <= score <= 1 for _, score in value):
            raise ValueError("a score lies between 0 and 1")
        return value


GRADE_PARTS = {
    "webhook_success": GradePart(weight=25, points=((0.90, 0.60), (0.95, 0.80), (0.99, 1))),
    "lead_conversion": GradePart(weight=30, points=((0.10, 0.667), (0.15, 0.833), (0.20, 1))),
    "revenue_per_lead": GradePart(weight=25, points=((5_000, 1),)),
    "recommendation_acceptance": GradePart(
        weight=20, points=((0.20, 0.50), (0.40, 0.75), (0.60, 1))
    ),
}
