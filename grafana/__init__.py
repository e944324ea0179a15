"""The boards, in Python: `make boards` writes `dashboards/` from them."""
