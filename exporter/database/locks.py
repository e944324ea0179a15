"""The advisory locks of the service: one number each, so that nobody else's is taken by mistake."""

# The first eight bytes of sha256('ghl-exporter …') would say no more than these do.
MIGRATION_LOCK = 0x67686C_01
LEADER_LOCK = 0x67686C_02
PROJECTION_LOCK = 0x67686C_03
REBUILD_LOCK = 0x67686C_04
PARTITION_LOCK = 0x67686C_05
