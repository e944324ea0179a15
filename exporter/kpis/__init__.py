"""From facts to a KPI snapshot: one SQL file for each KPI or family."""
