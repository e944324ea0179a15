"""From stored events to facts and roll-ups, in one transaction, exactly once."""
