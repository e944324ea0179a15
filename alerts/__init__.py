"""Who is told what, and when: `make rules` writes the rule files from the modules here."""
